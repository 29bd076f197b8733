"""What tells one decoder block's arithmetic from another's, and the parts that all share.

The engine and the training of students read the same `BlockKind`, made from a family's row and a
checkpoint's configuration: a family with these parts is a row in `families.py` and nothing else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig

from undertow.models.families import FamilyLayout

QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
OUTPUT, DOWN = "self_attn.o_proj", "mlp.down_proj"
JOINED = {QUERY_KEY_VALUE: ("self_attn.qkv_proj",), GATE_UP: ("mlp.gate_up_proj",)}


@dataclass(frozen=True)
class BlockKind:
    """All that tells one block's arithmetic from another's, apart from weights.

    norms: before and after attention, before and after the MLP; None where none stands. window:
    how many tokens back attention looks, itself included. rope_kind: the name of the rotary
    table, None where the model has one. attention_cap: c tanh(x / c) over query x key.
    """

    norms: tuple[str | None, str | None, str | None, str | None]
    norm_adds_one: bool
    query_key_norm: str
    joined: bool
    activation: str
    epsilon: float
    head_size: int
    attention_scale: float
    attention_cap: float | None
    residual_multiplier: float
    window: int | None
    rotates: bool
    rope_kind: str | None

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The block's linear layers, those of one input together."""
        joined = JOINED if self.joined else {}
        return (
            joined.get(QUERY_KEY_VALUE, QUERY_KEY_VALUE),
            (OUTPUT,),
            joined.get(GATE_UP, GATE_UP),
            (DOWN,),
        )


def block_kinds(config: PretrainedConfig, layout: FamilyLayout) -> list[BlockKind]:
    """The kind of each block."""
    family, norms = layout.family, layout.family.norms
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return [
        BlockKind(
            norms=(
                norms.before_attention,
                norms.after_attention,
                norms.before_mlp,
                norms.after_mlp,
            ),
            norm_adds_one=family.norm_adds_one,
            query_key_norm=family.query_key_norm,
            joined=family.joined,
            activation=layout.activation,
            epsilon=config.rms_norm_eps,
            head_size=size,
            attention_scale=layout.attention_scale,
            attention_cap=layout.attention_cap,
            residual_multiplier=layout.residual_multiplier,
            window=window,
            rotates=rotates,
            rope_kind=rope_kind,
        )
        for window, rotates, rope_kind in zip(
            layout.windows, layout.rotates, layout.rope_kinds, strict=True
        )
    ]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, adds_one: bool) -> Tensor:
    """RMS norm (Zhang and Sennrich 2019), taken in float32; adds_one: weights are meant plus 1."""
    exact = x.float()
    normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    if adds_one:
        return (normed * (1 + weight.float())).to(x.dtype)
    return weight * normed.to(x.dtype)


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on as much of each head as the tables are wide.

    x: [rows, length, heads, size]; cosine, sine: [rows, length, rotary size].
    """
    cosine, sine = cosine[:, :, None], sine[:, :, None]
    size = cosine.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cosine + torch.cat([-second, first], dim=-1) * sine
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned
