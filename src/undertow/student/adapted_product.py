"""A frozen linear layer and its adapter in as few passes over the tokens as there are products.

The adapter's product is written first, and the frozen one is taken onto it where it stands, forward
and backward: it reads what is there while it multiplies, which leaves memory idle. Added
afterwards, both would be read again by whatever comes next.
"""

from typing import Any, cast

import torch
from torch import Tensor


def adapted_product(x: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """x W^T + (x A^T) B^T, [S, T, outputs]; the frozen weight gets no gradient (Hu et al. 2021).

    x: [S, T, inputs]; weight: [outputs, inputs]; down: A [S, ranks, inputs]; up: B [S, outputs,
    ranks].
    """
    return cast(Tensor, _AdaptedProduct.apply(x, weight, down, up))  # type: ignore[no-untyped-call]


# An operation of its own, because PyTorch's compiler makes of `addmm_` one that copies first.
@torch.library.custom_op("undertow::add_product", mutates_args=("total",))
def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total [n, m] += left [n, k] right [k, m]."""
    total.addmm_(left, right)


class _AdaptedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
        low = torch.bmm(x, down.transpose(1, 2))
        total = torch.bmm(low, up.transpose(1, 2))
        _add_product(total.view(-1, total.shape[2]), x.flatten(0, 1), weight.t())
        ctx.save_for_backward(x, weight, down, up, low)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        (gradient,) = outer
        by_low = torch.bmm(gradient, up)
        by_x = torch.bmm(by_low, down)
        _add_product(by_x.view(-1, by_x.shape[2]), gradient.flatten(0, 1), weight)
        by_down = torch.bmm(by_low.transpose(1, 2), x)
        by_up = torch.bmm(gradient.transpose(1, 2), low)
        return by_x, None, by_down, by_up
