"""Several subjects on one base in one batch: each has its own adapter, its own constant, or both.

The rows of a batch belong to the subjects in equal parts, in their order, so that what is a
subject's own is one product batched by subject. Knows nothing about students or teachers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ENOUGH = 1e12  # weights x rows of a batch, beyond which more rows are no faster on a GPU


class Additions(NamedTuple):
    """What S subjects add to a linear layer: up down x (Hu et al. 2021), and a constant.

    down: [S, rank, inputs]; up: [S, outputs, rank], with the adapter's scale in it; constant:
    [S, outputs]. Zeros are a subject that adds nothing.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    constant: Tensor | None = None


class StackedLinear(nn.Module):
    """A linear layer, plain or 4-bit, with what each subject adds to its own rows."""

    def __init__(self, base: Any, added: Additions) -> None:
        super().__init__()
        self.base_layer, self.added = base, added
        self.in_features: int = base.in_features
        self.out_features: int = base.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[S x rows, length, outputs] from x [S x rows, length, inputs]."""
        plain: Tensor = self.base_layer(x)
        return with_additions(plain, x, self.added)


def with_additions(plain: Tensor, x: Tensor, added: Additions) -> Tensor:
    """A layer's outputs with each subject's own on them, where x is what the layer took."""
    first = next(part for part in added if part is not None)
    whole = plain.reshape(first.shape[0], -1, plain.shape[-1])
    if added.down is not None and added.up is not None:
        low = torch.bmm(x.reshape(*whole.shape[:2], -1), added.down.transpose(1, 2))
        whole = torch.baddbmm(whole, low, added.up.transpose(1, 2))
    if added.constant is not None:
        whole = whole + added.constant[:, None]
    return whole.view_as(plain)


def worth_sharing(model: PreTrainedModel, rows: int) -> int:
    """How many subjects, of `rows` rows each, make a batch faster on the model's device."""
    if model.device.type != "cuda":
        return 1
    return max(1, int(ENOUGH / (model.num_parameters() * max(rows, 1))))


@contextmanager
def stacked(model: PreTrainedModel, layers: Mapping[str, Additions]) -> Iterator[None]:
    """Let each subject add its own to these linear layers, by name in the model.

    The model is as it was when the block ends, also after an exception.
    """
    before: dict[str, Any] = {name: model.get_submodule(name) for name in layers}
    try:
        for name, added in layers.items():
            weight = before[name].weight
            parts = (
                None if part is None else part.to(weight.device, model.dtype) for part in added
            )
            _put(model, name, StackedLinear(before[name], Additions(*parts)))
        yield
    finally:
        for name, layer in before.items():
            _put(model, name, layer)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
