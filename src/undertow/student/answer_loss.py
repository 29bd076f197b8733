"""The loss of answer tokens, with the output layer's products a stretch of targets at a time.

The output layer is frozen, so a target's gradient is known as soon as its logits are: both are
taken in one pass, and logits of a large vocabulary never stand in memory for all targets at once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from undertow.models.fused import fused

AT_ONCE = 2**28  # logits


class AnswerLoss(torch.autograd.Function):
    """[S]: each student's sum of weight x (negative log-likelihood + pull x KL(base || student)).

    hidden: [S x N, width]; head: [vocabulary, width]; targets, weights: [S x N]; divisor and cap
    of the logits as the family has them. base: hidden of the model without adapters, and pull:
    [S x N], both None where nobody is pulled to it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        students: int,
        divisor: float,
        cap: float | None,
        base: Tensor | None = None,
        pull: Tensor | None = None,
    ) -> Tensor:
        losses, gradients = [], []
        size = _stretch(len(targets), head.shape[0])
        for start in range(0, len(targets), size):
            end = start + size
            target, weight = targets[start:end], weights[start:end]
            logits = linear(hidden[start:end], head)
            if base is None or pull is None:
                loss, gradient = _loss_and_gradient(logits, target, weight, divisor, cap)
            else:
                other = linear(base[start:end], head)
                loss, gradient = _pulled_loss_and_gradient(
                    logits, other, target, weight, pull[start:end], divisor, cap
                )
            losses.append(loss)
            gradients.append(gradient @ head)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses).view(students, -1).sum(1)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        each = outer[0].repeat_interleave(gradient.shape[0] // outer[0].shape[0])
        return (gradient * each[:, None].to(gradient.dtype), *[None] * 8)


def _stretch(targets: int, vocabulary: int) -> int:
    """Targets to a stretch: all stretches of a pass are of one size."""
    stretches = -(-targets * vocabulary // AT_ONCE)
    while targets % stretches:
        stretches += 1
    return targets // stretches


@fused(logits=(-2,), targets=(-1,), weights=(-1,))
def _loss_and_gradient(
    logits: Tensor, targets: Tensor, weights: Tensor, divisor: float, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Weighted losses [targets] float32, and their gradient by `logits` in the logits' type."""
    exact = logits.float()
    slope: Tensor | float = 1.0
    if divisor != 1:
        exact, slope = exact / divisor, 1 / divisor
    if cap is not None:
        bent = torch.tanh(exact / cap)
        exact, slope = bent * cap, slope * (1 - bent * bent)
    total = exact.logsumexp(-1, keepdim=True)
    losses = (total - exact.gather(1, targets[:, None]))[:, 0] * weights
    chosen = torch.arange(exact.shape[1], device=exact.device) == targets[:, None]
    gradient = ((exact - total).exp() - chosen.float()) * weights[:, None] * slope
    return losses, gradient.to(logits.dtype)


@fused(logits=(-2,), base=(-2,), targets=(-1,), weights=(-1,), pull=(-1,))
def _pulled_loss_and_gradient(
    logits: Tensor,
    base: Tensor,
    targets: Tensor,
    weights: Tensor,
    pull: Tensor,
    divisor: float,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """The same with pull x KL(base || student); its gradient by logits is p_student - p_base."""
    exact, other = logits.float(), base.float()
    slope: Tensor | float = 1.0
    if divisor != 1:
        exact, other, slope = exact / divisor, other / divisor, 1 / divisor
    if cap is not None:
        bent = torch.tanh(exact / cap)
        exact, slope = bent * cap, slope * (1 - bent * bent)
        other = torch.tanh(other / cap) * cap
    own = exact - exact.logsumexp(-1, keepdim=True)
    bases = other - other.logsumexp(-1, keepdim=True)
    p, q = own.exp(), bases.exp()
    apart = (q * (bases - own)).sum(-1)
    losses = (apart * pull - own.gather(1, targets[:, None])[:, 0]) * weights
    chosen = torch.arange(exact.shape[1], device=exact.device) == targets[:, None]
    gradient = (p - chosen.float() + (p - q) * pull[:, None]) * weights[:, None] * slope
    return losses, gradient.to(logits.dtype)
