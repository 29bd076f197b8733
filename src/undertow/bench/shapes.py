"""Models of a known shape with random weights, made on the device."""

from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from undertow.errors import ConfigError
from undertow.models.families import family_of


class Shape(NamedTuple):
    """A configuration, in words that every family's configuration knows, and its own ones."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    own: dict[str, Any] = {}  # noqa: RUF012 - a table's rows change nothing

    def model(self) -> PreTrainedModel:
        settings = self._asdict()
        own, model_type = settings.pop("own"), settings.pop("model_type")
        config = AutoConfig.for_model(model_type, **(settings | own))
        attention = family_of(config).attention
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention
        )
        return made


EPSILON = {"rms_norm_eps": 1e-5}
GEMMA = {"query_pre_attn_scalar": 256}
CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}

SHAPES = {
    "llama2-7b": Shape("llama", 4096, 11008, 32, 32, 32, 32000, 128, 4096, False, EPSILON),
    "smollm2-135m": Shape("llama", 576, 1536, 30, 9, 3, 49152, 64, 8192, True, EPSILON),
    "qwen25-0.5b": Shape("qwen2", 896, 4864, 24, 14, 2, 151936, 64, 32768, True),
    "qwen25-1.5b": Shape("qwen2", 1536, 8960, 28, 12, 2, 151936, 128, 32768, True),
    "qwen25-7b": Shape("qwen2", 3584, 18944, 28, 28, 4, 152064, 128, 32768, False),
    "qwen3-0.6b": Shape("qwen3", 1024, 3072, 28, 16, 8, 151936, 128, 40960, True),
    "qwen3-4b": Shape("qwen3", 2560, 9728, 36, 32, 8, 151936, 128, 40960, True),
    "gemma2-2b": Shape(
        "gemma2",
        2304,
        9216,
        26,
        8,
        4,
        256000,
        256,
        8192,
        True,
        GEMMA | CAPS | {"sliding_window": 4096},
    ),
    "gemma3-1b": Shape(
        "gemma3_text",
        1152,
        6912,
        26,
        4,
        1,
        262144,
        256,
        32768,
        True,
        GEMMA | {"sliding_window": 512, "sliding_window_pattern": 6},
    ),
    "tiny": Shape("llama", 64, 128, 2, 4, 2, 512, 16, 2048, False),
}


def small(shape: Shape) -> Shape:
    """The same family, depth and number of query heads to a key, in widths that a CPU runs."""
    width, keys = 16, min(shape.num_key_value_heads, 4)
    heads = shape.num_attention_heads * keys // shape.num_key_value_heads
    if heads > 8:
        heads, keys = heads // keys, 1
    return shape._replace(
        hidden_size=width * heads,
        intermediate_size=2 * width * heads,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=2048,
        head_dim=width,
    )


def build(shape: str | Shape, device: torch.device) -> PreTrainedModel:
    """A model of this shape in bfloat16 (float32 on a CPU); ConfigError for an unknown shape."""
    if isinstance(shape, str):
        if shape not in SHAPES:
            raise ConfigError(f"--shape: no shape {shape!r}", f"use one of: {', '.join(SHAPES)}")
        shape = SHAPES[shape]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with torch.device(device), no_init_weights():
            model: Any = shape.model()
    finally:
        torch.set_default_dtype(before)
    ones = 0 if family_of(model.config).norm_adds_one else 1
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(ones if "norm" in name else 0)
    model.config.architectures = [type(model).__name__]  # as a saved configuration has it
    ready: PreTrainedModel = model.eval().requires_grad_(False)
    return ready


def multiplied(model: PreTrainedModel) -> int:
    """Weights that every token is multiplied with: all but a table that only embeds."""
    table: Any = model.get_input_embeddings()
    tied = model.get_output_embeddings().weight is table.weight
    return model.num_parameters() - (0 if tied else int(table.weight.numel()))


def multiplied_by_prompts(model: Any) -> int:
    """Of these, the weights that a prompt needs: all up to the last block's keys and values."""
    last = model.model.layers[-1]
    spared = (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp, model.lm_head)
    return multiplied(model) - sum(int(p.numel()) for part in spared for p in part.parameters())
