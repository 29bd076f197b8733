"""A decoder block as a plain function of its weights, for several students on one frozen base.

Because the weights are arguments and not modules, one compilation serves all blocks of a kind, all
students and all groups of a process. Each student's adapter is one row of a flat tensor; the
frozen products see the students' tokens together, the adapters' are batched by student.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from undertow.models.block_kind import DOWN, OUTPUT, BlockKind, block_kinds, rms_norm, rotated
from undertow.models.families import FamilyLayout
from undertow.models.fused import give_up_none
from undertow.student.adapted_product import adapted_product

Weights = Mapping[str, Tensor]
"""By name within the block, as in "mlp.down_proj.weight"."""


@dataclass(frozen=True)
class Adapted:
    """A linear layer with an adapter: its name in the block, and its widths."""

    name: str
    inputs: int
    outputs: int


def joint(names: Sequence[str]) -> str:
    """The name of layers of one input as one."""
    return "+".join(names)


@dataclass(frozen=True)
class Kind(BlockKind):
    """A block with adapters on. adapted: in the order of the layers; outputs: of every layer."""

    rank: int
    scaling: float
    adapted: tuple[Adapted, ...]
    outputs: tuple[tuple[str, int], ...]

    @property
    def numbers(self) -> int:
        """How many numbers one block's adapter has."""
        return sum(self.rank * (one.inputs + one.outputs) for one in self.adapted)


class Places(NamedTuple):
    """Where tokens stand.

    cosine, sine: [S, T, rotary size]; bounds: [rows + 1] in S x T, and the longest row, for the
    variable-length attention; row: [S, T], which row a token is of, for the masked one.
    """

    cosine: Tensor
    sine: Tensor
    bounds: Tensor
    longest: int
    row: Tensor


def kinds_of(
    model: PreTrainedModel,
    layout: FamilyLayout,
    rank: int,
    scaling: float,
    adapted: Sequence[Adapted],
    first: int = 0,
) -> list[Kind]:
    """The kind of each block; those below `first` have no adapter."""
    blocks: Any = model.model
    every = zip(block_kinds(model.config, layout), blocks.layers, strict=True)
    return [
        Kind(
            **vars(kind),
            rank=rank,
            scaling=scaling,
            adapted=tuple(adapted) if number >= first else (),
            outputs=tuple(
                (name, layer.out_features)
                for name, layer in block.named_modules()
                if isinstance(layer, nn.Linear)
            ),
        )
        for number, (kind, block) in enumerate(every)
    ]


def run_block(
    kind: Kind, hidden: Tensor, adapters: Tensor, places: Places, weights: Weights
) -> Tensor:
    """The residual stream [S, T, hidden] after the block; adapters: [S, kind.numbers], the B's of
    which count as they are: their scaling is in them, see `scales_of`.

    Compiled on a GPU, once for each kind and S; T may change.
    """
    if hidden.device.type == "cuda":
        return _compiled(kind)(hidden, adapters, places, weights)
    return _block(kind, parts_of(kind), hidden, adapters, places, weights)


@cache
def _compiled(kind: Kind) -> Callable[[Tensor, Tensor, Places, Weights], Tensor]:
    # Another model or another S is another compilation, not a reason for symbolic widths.
    give_up_none()
    parts = parts_of(kind)

    def block(hidden: Tensor, adapters: Tensor, places: Places, weights: Weights) -> Tensor:
        return _block(kind, parts, hidden, adapters, places, weights)

    compiled: Any = torch.compile(block, dynamic=False)

    def marked(hidden: Tensor, adapters: Tensor, places: Places, weights: Weights) -> Tensor:
        for tensor in (hidden, places.cosine, places.sine, places.row):
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        return cast(Tensor, compiled(hidden, adapters, places, weights))

    return marked


def _block(
    kind: Kind,
    parts: tuple["Part", ...],
    hidden: Tensor,
    adapters: Tensor,
    places: Places,
    weights: Weights,
) -> Tensor:
    before_attention, after_attention, before_mlp, after_mlp = kind.norms
    multiplier = kind.residual_multiplier
    linear = _Linear(kind, parts, adapters, weights)

    x = _norm(kind, hidden, before_attention, weights)
    branch = _norm(kind, _attention(kind, x, places, linear, weights), after_attention, weights)
    hidden = hidden + (branch if multiplier == 1 else branch * multiplier)
    x = _norm(kind, hidden, before_mlp, weights)
    gate, up = linear.gate_up(x)
    (branch,) = linear(ACT2FN[kind.activation](gate) * up, (DOWN,))
    branch = _norm(kind, branch, after_mlp, weights)
    return hidden + (branch if multiplier == 1 else branch * multiplier)


class _Linear:
    """The block's linear layers with each student's adapter on (Hu et al. 2021).

    A student's row holds, for each set of layers with one input, first all A [rank, inputs], then
    all B [outputs, rank]. Both are one product each: beside the frozen ones they do next to no
    arithmetic, and what they cost is how often the tokens are read and written for them.
    """

    def __init__(
        self, kind: Kind, parts: tuple["Part", ...], adapters: Tensor, weights: Weights
    ) -> None:
        self._kind, self._parts = kind, parts
        self._adapters, self._weights = adapters, weights

    def __call__(self, x: Tensor, names: tuple[str, ...]) -> Sequence[Tensor]:
        """Each layer's [S, T, outputs] from x [S, T, inputs]."""
        outputs = dict(self._kind.outputs)
        widths = [outputs[name] for name in names]
        adapter = self._adapter(x, names, widths)
        weight = self._weights[f"{joint(names)}.weight"]
        bias = self._weights.get(f"{joint(names)}.bias")
        if adapter is None:
            every = functional.linear(x, weight, bias)
        else:
            every = adapted_product(x, weight, *adapter)
            every = every if bias is None else every + bias
        return torch.split(every, widths, dim=-1)

    def _adapter(
        self, x: Tensor, names: tuple[str, ...], widths: Sequence[int]
    ) -> tuple[Tensor, Tensor] | None:
        """The A's [S, ranks, inputs] and B's [S, outputs, ranks] of layers with one input."""
        here = [part for part in self._parts if part.layer.name in names]
        if not here:
            return None
        students, rank = x.shape[0], self._kind.rank
        ranks, inputs = len(here) * rank, here[0].layer.inputs
        down = self._adapters[:, here[0].down : here[0].down + ranks * inputs]
        # Every layer reads its own ranks alone: B's stand along the diagonal.
        at = {part.layer.name: (number * rank, part) for number, part in enumerate(here)}
        blocks = []
        for name, width in zip(names, widths, strict=True):
            if name not in at:
                blocks.append(x.new_zeros(students, width, ranks))
                continue
            before, part = at[name]
            up = self._adapters[:, part.up : part.up + width * rank].view(students, width, rank)
            blocks.append(functional.pad(up, (before, ranks - rank - before)))
        return down.view(students, ranks, inputs), torch.cat(blocks, dim=1)

    def query_key_value(self, x: Tensor) -> Sequence[Tensor]:
        (names, *_) = self._kind.groups
        found = self(x, names)
        if not self._kind.joined:
            return found
        outputs = self._weights[f"{OUTPUT}.weight"].shape[1]
        shared = (found[0].shape[-1] - outputs) // 2
        return torch.split(found[0], [outputs, shared, shared], dim=-1)

    def gate_up(self, x: Tensor) -> Sequence[Tensor]:
        found = self(x, self._kind.groups[2])
        return found[0].chunk(2, dim=-1) if self._kind.joined else found


class Part(NamedTuple):
    """Where a layer's A and B begin in a student's row of numbers."""

    layer: Adapted
    down: int
    up: int


@cache
def parts_of(kind: Kind) -> tuple[Part, ...]:
    """A's of one input first and side by side, then their B's."""
    parts: list[Part] = []
    at = 0
    for names in kind.groups:
        layers = [layer for name in names for layer in kind.adapted if layer.name == name]
        ups = at + sum(kind.rank * layer.inputs for layer in layers)
        for layer in layers:
            parts.append(Part(layer, at, ups))
            at += kind.rank * layer.inputs
            ups += kind.rank * layer.outputs
        at = ups
    return tuple(parts)


def scales_of(kind: Kind) -> Tensor:
    """[numbers]: what a block takes of each number of an adapter, 1 of A's and alpha / r of B's.

    Scaled there, neither outputs nor their gradients have to be, which are of all tokens.
    """
    scales = torch.ones(kind.numbers)
    for part in parts_of(kind):
        scales[part.up : part.up + part.layer.outputs * kind.rank] = kind.scaling
    return scales


def _attention(kind: Kind, x: Tensor, places: Places, linear: _Linear, weights: Weights) -> Tensor:
    query, key, value = linear.query_key_value(x)
    if kind.query_key_norm == "whole":
        query = _norm(kind, query, "self_attn.q_norm", weights)
        key = _norm(kind, key, "self_attn.k_norm", weights)
    query, key, value = (
        part.view(*part.shape[:2], -1, kind.head_size) for part in (query, key, value)
    )
    if kind.query_key_norm == "head":
        query = _norm(kind, query, "self_attn.q_norm", weights)
        key = _norm(kind, key, "self_attn.k_norm", weights)
    if kind.rotates:
        query, key = (rotated(part, places.cosine, places.sine) for part in (query, key))
    attended = _attended(kind, query, key, value, places)
    (output,) = linear(attended.flatten(2), (OUTPUT,))
    return output


def _attended(kind: Kind, query: Tensor, key: Tensor, value: Tensor, places: Places) -> Tensor:
    """[S, T, heads, size]; causal within each row (Dao 2023 where there is a GPU)."""
    groups = query.shape[2] // key.shape[2]
    if query.device.type == "cuda" and query.dtype != torch.float32:
        attended: Any = varlen_attn(
            query.flatten(0, 1),
            key.repeat_interleave(groups, dim=2).flatten(0, 1),
            value.repeat_interleave(groups, dim=2).flatten(0, 1),
            places.bounds,
            places.bounds,
            places.longest,
            places.longest,
            scale=kind.attention_scale,
            window_size=(-1 if kind.window is None else kind.window - 1, 0),
        )
        return cast(Tensor, attended.view_as(query))
    row = places.row
    seen = (row[:, :, None] == row[:, None]).tril()
    if kind.window is not None:
        seen = seen.triu(1 - kind.window)
    attended = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        seen[:, None],
        scale=kind.attention_scale,
        enable_gqa=groups > 1,
    )
    return cast(Tensor, attended.transpose(1, 2))


def _norm(kind: Kind, x: Tensor, name: str | None, weights: Weights) -> Tensor:
    if name is None:
        return x
    return rms_norm(x, weights[f"{name}.weight"], kind.epsilon, kind.norm_adds_one)
