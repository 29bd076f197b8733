"""How the decoder blocks of each model family are put together: one row a family.

Steering, packing, the engine, training and exports read the same rows. A row says where the norms
stand and under which name; `layout_of` adds what the checkpoint's configuration sets (windows,
multipliers, caps) and checks all blocks against the row. A family without a row is refused: what
its blocks do to a vector is not known here.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from undertow.errors import UndertowError


@dataclass(frozen=True)
class Norms:
    """Names of a block's norms, None where none stands: h + after(branch(before(h)))."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None

    @property
    def names(self) -> set[str]:
        every = (self.before_attention, self.after_attention, self.before_mlp, self.after_mlp)
        return {name for name in every if name}


@dataclass(frozen=True)
class Family:
    """What holds for all models of a family.

    query_key_norm: after the projections, over each head or over all heads together ("whole").
    joined: qkv_proj and gate_up_proj instead of five projections.
    norm_adds_one: norms multiply by 1 + weight, in float32, instead of by weight.
    scaled_embeddings: the embedding module multiplies by sqrt(hidden) itself.
    caps_attention: c tanh(x / c) over query x key, with c from the configuration.
    """

    model_type: str
    title: str
    norms: Norms = field(default_factory=Norms)
    query_key_norm: Literal["none", "head", "whole"] = "none"
    joined: bool = False
    norm_adds_one: bool = False
    scaled_embeddings: bool = False
    caps_attention: bool = False

    @property
    def attention(self) -> Literal["sdpa", "eager"]:
        """transformers' attention for it: PyTorch's own cannot cap."""
        return "eager" if self.caps_attention else "sdpa"


AROUND = Norms(
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
BEHIND = Norms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")

FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", "Llama"),
        Family("mistral", "Mistral"),
        Family("qwen2", "Qwen2"),
        Family("qwen3", "Qwen3", query_key_norm="head"),
        Family("gemma", "Gemma 1", norm_adds_one=True, scaled_embeddings=True),
        Family(
            "gemma2",
            "Gemma 2",
            AROUND,
            norm_adds_one=True,
            scaled_embeddings=True,
            caps_attention=True,
        ),
        Family(
            "gemma3_text",
            "Gemma 3 (text)",
            AROUND,
            query_key_norm="head",
            norm_adds_one=True,
            scaled_embeddings=True,
        ),
        Family("phi3", "Phi-3", joined=True),
        Family("olmo2", "OLMo-2", BEHIND, query_key_norm="whole"),
        Family("granite", "Granite"),
        Family("smollm3", "SmolLM3"),
    )
}


@dataclass(frozen=True)
class FamilyLayout:
    """A family's row with what one checkpoint's configuration adds to it.

    windows: by block, how many tokens back attention looks, itself included; None is all.
    rotates: by block, whether queries and keys get rotary positions.
    rope_kinds: by block, the name of its rotary table (Gemma 3 has two); None is the only one.
    residual_multiplier: on each branch before it joins the stream; embedding_multiplier: on the
    embeddings, beside what the embedding module does itself; attention_scale: on query x key;
    attention_cap, logit_cap: c tanh(x / c); logit_divisor: of the output layer's logits.
    """

    family: Family
    activation: str
    windows: tuple[int | None, ...]
    rotates: tuple[bool, ...]
    rope_kinds: tuple[str | None, ...]
    attention_scale: float
    residual_multiplier: float = 1.0
    embedding_multiplier: float = 1.0
    attention_cap: float | None = None
    logit_cap: float | None = None
    logit_divisor: float = 1.0

    @cached_property
    def plain_stream(self) -> bool:
        """Whether the MLP's output joins the stream as it is, but for a multiplier."""
        return self.family.norms.after_mlp is None

    def sees_all(self, length: int) -> bool:
        """Whether no window cuts anything off from a sequence of `length` tokens."""
        return all(window is None or length <= window for window in self.windows)


def family_of(config: PretrainedConfig) -> Family:
    """The row of a configuration; UndertowError where there is none."""
    family = FAMILIES.get(config.model_type)
    if family is not None:
        return family
    known = ", ".join(row.title for row in FAMILIES.values())
    why = f"what the blocks of a {config.model_type} model do with an added vector is not known"
    if any(getattr(config, name, None) for name in _EXPERTS):
        why = f"a {config.model_type} model is a mixture of experts"
    elif getattr(config, "vision_config", None) is not None:
        why = f"a {config.model_type} model reads images too"
    raise UndertowError(
        f"{why}, so it cannot be steered and distilled here",
        f"use a text-only chat model of one of the families {known}",
    )


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def layout_of_config(config: PretrainedConfig) -> FamilyLayout:
    """The layout that a configuration describes, before any weight is there."""
    family = family_of(config)
    if getattr(config, "use_bidirectional_attention", False):
        raise UndertowError(
            "this checkpoint attends in both directions: it embeds text and does not answer",
            "use the chat model of the family",
        )
    count = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    local = [kind == "sliding_attention" for kind in kinds] if kinds else [True] * count
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    scale = getattr(config, "query_pre_attn_scalar", None) or head
    own_scale = getattr(config, "attention_multiplier", None)
    own_tables = family.model_type == "gemma3_text"
    return FamilyLayout(
        family,
        activation=getattr(config, "hidden_activation", None) or config.hidden_act,
        windows=tuple(window if near else None for near in local),
        rotates=tuple(map(bool, getattr(config, "no_rope_layers", None) or [True] * count)),
        rope_kinds=tuple(kinds) if own_tables and kinds else (None,) * count,
        attention_scale=scale**-0.5 if own_scale is None else own_scale,
        residual_multiplier=getattr(config, "residual_multiplier", 1.0),
        embedding_multiplier=getattr(config, "embedding_multiplier", 1.0),
        # Gemma 3's configuration names a cap too, which its attention does not heed.
        attention_cap=config.attn_logit_softcapping if family.caps_attention else None,
        logit_cap=getattr(config, "final_logit_softcapping", None),
        logit_divisor=getattr(config, "logits_scaling", 1.0),
    )


def check_length(config: PretrainedConfig, length: int) -> None:
    """UndertowError where rows of `length` tokens would depend on which others they stand beside.

    Some rotary tables are changed for a whole batch once one of its rows is longer than the model
    was trained for: "dynamic" behind max_position_embeddings, "longrope" behind the length before
    it was extended.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    most = {
        "dynamic": config.max_position_embeddings,
        "longrope": original or config.max_position_embeddings,
    }.get(rope.get("rope_type", "default"))
    if most is not None and length > most:
        raise UndertowError(
            f"a row of {length} tokens is longer than {most}, where this model's "
            f"{rope['rope_type']} rotary positions begin to depend on the other rows of a batch",
            "choose shorter prompts or a smaller max_new_tokens in params.yaml, or a checkpoint "
            "with other rotary positions",
        )


def layout_of(model: PreTrainedModel) -> FamilyLayout:
    """The model's layout; UndertowError where a block's modules are not those of its row."""
    layout = layout_of_config(model.config)
    decoder: Any = model.model
    for number, block in enumerate(decoder.layers):
        if problem := _mismatch(block, layout):
            raise UndertowError(
                f"block {number} of this {layout.family.title} model {problem}: it is not the "
                "block that is known here under this name",
                "use the family's original checkpoint and the pinned transformers "
                "(python -m pip install -c constraints.txt -e .)",
            )
    return layout


def _mismatch(block: Any, layout: FamilyLayout) -> str | None:
    """What in a block contradicts its family's row."""
    family = layout.family
    children = dict(block.named_children())
    if "self_attn" not in children or "mlp" not in children:
        return "has no self_attn or no mlp"
    others = {
        name
        for name, module in children.items()
        if name not in ("self_attn", "mlp") and not isinstance(module, nn.Dropout | nn.Identity)
    }
    if others != family.norms.names:
        return f"has the parts {sorted(others)} beside attention and MLP"
    if not hasattr(block.mlp, "down_proj"):
        return "has no mlp.down_proj"
    if hasattr(block.self_attn, "q_norm") != (family.query_key_norm != "none"):
        return "norms its queries otherwise"
    if hasattr(block.self_attn, "qkv_proj") != family.joined:
        return "joins its projections otherwise"
    if getattr(block, "residual_multiplier", 1.0) != layout.residual_multiplier:
        return "multiplies its branches otherwise"
    return None
