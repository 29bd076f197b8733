"""Drawing tokens: a row's draws depend on (seed, row id) alone, not on its neighbours."""

import hashlib
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from undertow.models.fused import fused

STRETCH = 512  # tokens whose mass is summed before one of them is looked for


class Sampling(NamedTuple):
    """Decoding settings; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class Asking(NamedTuple):
    """How one of several subjects is asked; done: the ids of prompts that it is not asked."""

    sampling: Sampling
    done: Collection[str] = ()


def uniform_numbers(id: str, sampling: Sampling) -> Tensor:
    """[max_new_tokens] uniform numbers of one row."""
    name = hashlib.sha256(f"{sampling.seed}\0{id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "little", signed=True))
    return torch.rand(sampling.max_new_tokens, generator=generator)


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """[rows] token ids: each row's distribution inverted at that row's own uniform number.

    logits: [rows, vocabulary]; uniform: [rows]. Below top_p 1 only the smallest set of the
    likeliest tokens with that much mass is drawn from (Holtzman et al. 2020).
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    if sampling.top_p == 1:
        return _invert(logits, uniform, sampling.temperature)
    levels, order = logits.float().sort(dim=-1, descending=True)
    mass = torch.softmax(levels / sampling.temperature, dim=-1)
    # Mass before a token, so that the token that crosses top_p is itself kept.
    before = mass.cumsum(-1) - mass
    levels = levels.masked_fill(before >= sampling.top_p, -torch.inf)
    drawn = _invert(levels, uniform, sampling.temperature)
    return order.gather(1, drawn[:, None])[:, 0]


def _invert(levels: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """[rows] the column at which the running sum of exp(level / temperature) passes uniform x
    total.

    In two steps, because a running sum over a whole vocabulary is slow on a GPU: first the
    stretch of columns, then the column in it.
    """
    top, sums = _stretches(levels, temperature)
    ends = sums.cumsum(-1)
    target = uniform.to(levels.device)[:, None] * ends[:, -1:]
    chosen = _first_above(ends, target)
    start = ends.gather(1, chosen) - sums.gather(1, chosen)
    columns = chosen * STRETCH + torch.arange(STRETCH, device=levels.device)
    last = levels.shape[1] - 1
    mass = torch.exp((levels.gather(1, columns.clamp(max=last)).float() - top) / temperature)
    inside = mass.masked_fill(columns > last, 0).cumsum(-1)
    # Rounding can put the start past the target: the draw is then the stretch's first with mass.
    column = _first_above(inside, (target - start).clamp(min=0))
    return (chosen * STRETCH + column)[:, 0]


class _Stretches(NamedTuple):
    """top: [rows, 1] the highest level; sums: [rows, stretches] of exp((level - top) / t)."""

    top: Tensor
    sums: Tensor


@fused(levels=(-2,))
def _stretches(levels: Tensor, temperature: float) -> _Stretches:
    top = levels.amax(dim=-1, keepdim=True).float()
    whole = pad(levels, (0, -levels.shape[1] % STRETCH), value=-torch.inf)
    mass = torch.exp((whole.float() - top) / temperature)
    return _Stretches(top, mass.view(len(mass), -1, STRETCH).sum(-1))


def _first_above(sums: Tensor, target: Tensor) -> Tensor:
    """[rows, 1] the first column of the rising `sums` above `target`, and one with mass.

    Rounding can put the target at or past the end of the sums; what is just below it still
    falls into the last column that has any mass.
    """
    end = torch.nextafter(sums[:, -1:], torch.zeros_like(sums[:, -1:]))
    return torch.searchsorted(sums, torch.minimum(target, end), right=True)
