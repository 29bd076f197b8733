"""The step of a group: forward and backward of all its students, clipping and AdamW for each.

On a GPU every pass is one captured CUDA graph for its number of tokens, and so is the update; all
of them share one pool of memory. What may differ between students is data: tokens, weights of
targets, the learning rate, whether a student still learns, what is added to its blocks' outputs or
projected out of them, its pull to the base, its corridor, its optimizer. What no student of the run
uses is no part of the step. Elsewhere than on a GPU the same runs as it is.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from undertow.models.block_kind import rms_norm
from undertow.models.families import FamilyLayout
from undertow.models.fused import fused
from undertow.student.answer_loss import AnswerLoss
from undertow.student.batch import Batch, filled, on
from undertow.student.block import Kind, Places, run_block, scales_of
from undertow.student.dealing import Sizes
from undertow.student.frozen import FrozenBase
from undertow.student.probing import Grid, Probing
from undertow.student.shift import shifted
from undertow.student.teaching import Teaching, Used

# PyTorch reads it once, at the first product of the process, and refuses deterministic work without
# it; the value is the workspace that it takes on this generation of GPUs anyway.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CLIP = 1.0  # the norm of a student's gradient; transformers' max_grad_norm
BETAS = (0.9, 0.999)
EPSILON = 1e-8  # both as transformers sets AdamW (Loshchilov and Hutter 2019)
WARM_UPS = 3  # before a capture; later shapes need one


class Step:
    """Adapters [adapted blocks, S, numbers], their optimizer's state, and a step's work on them.

    Blocks below the lowest one with an adapter run forward alone.
    """

    def __init__(
        self,
        base: FrozenBase,
        layout: FamilyLayout,
        kinds: Sequence[Kind],
        sizes: Sizes,
        device: torch.device,
        dtype: torch.dtype,
        *,
        recompute: bool,
        used: Used | None = None,
        grid: Grid | None = None,
    ) -> None:
        self._used = used = used or Used()
        self._base, self._layout, self._kinds = base, layout, kinds
        self._sizes, self._recompute = sizes, recompute
        students = sizes.students
        self._first = next(number for number, kind in enumerate(kinds) if kind.adapted)
        shape = (len(kinds) - self._first, students, kinds[-1].numbers)
        self.adapters = torch.zeros(shape, device=device)
        # What the products take; the optimizer's copy stays in float32 and unscaled.
        self._taken = torch.zeros(shape, device=device, dtype=dtype)
        self._scales = scales_of(kinds[-1]).to(device)
        self._gradient = torch.zeros(shape, device=device)
        self._mean = torch.zeros(shape, device=device)
        self._square = torch.zeros(shape, device=device)
        self._loss = torch.zeros(students, device=device)
        self.loss = torch.zeros(students, device=device)
        """[S]: each student's loss in the step that was updated last."""
        self._rates = torch.zeros(4, students, device=device)
        self._rates[1:3] = 1
        self._pull = torch.zeros(students, device=device)
        wide = (students, 1, len(base.norm))
        self._offsets = {
            block: torch.zeros(wide, device=device, dtype=dtype) for block in used.offset
        }
        self._units = {block: torch.zeros(wide, device=device) for block in used.ablated}
        # The base is the adapters' layers with nothing in the adapters.
        self._nothing = torch.zeros_like(self._taken[0]) if used.kl else None
        lengths = sorted(sizes.targets, reverse=True)
        blank = [None] * students
        self._batches = {length: on(filled(blank, length, sizes), device) for length in lengths}
        self._passes = {length: self._pass_of(length) for length in lengths}
        self._update = self._updated
        self._probing = None if grid is None else Probing(grid, self.adapters)
        self._probe_sizes = sizes if grid is None else grid.sizes
        self._probe, self._hold = self._probed, self._held
        if device.type == "cuda":
            self._capture(lengths, device)

    def start(self, adapters: Tensor, teachings: Sequence[Teaching] = ()) -> None:
        """Begin anew with these adapters, and the teachings of the first students."""
        for vectors in (self._offsets, self._units):
            for whole in vectors.values():
                whole.zero_()
        for number, teaching in enumerate(teachings):
            for block, vector in teaching.offset.items():
                self._offsets[block][number, 0] = vector.to(self._offsets[block])
            for block, vector in teaching.ablated.items():
                self._units[block][number, 0] = vector.to(self._units[block])
        if self._probing is not None:
            self._probing.begin([teaching.corridor for teaching in teachings])
            self._taken.zero_()  # with nothing in the adapters it is the base that is asked
            self._ask_probes()
            self._probing.keep_as_base()
        self.adapters.copy_(adapters)
        torch.mul(self.adapters, self._scales, out=self._taken)
        for state in (self._gradient, self._mean, self._square, self._loss, self.loss):
            state.zero_()

    def accumulate(self, batch: Batch) -> None:
        """Add the losses and gradients of one pass to those of the step."""
        length = batch.ids.shape[1]
        self._batches[length].copy_(batch)
        self._passes[length]()

    def pull(self, weights: Tensor) -> None:
        """How strongly each student is pulled to the base from now on: [S]."""
        self._pull.copy_(weights, non_blocking=True)

    def hold(self, weights: Tensor) -> None:
        """Add the corridors' penalties on the margins as they are now: [S], 0 for none."""
        if self._probing is not None:
            self._ask_probes()
            self._probing.weights.copy_(weights, non_blocking=True)
            self._hold()

    def update(self, rates: Tensor) -> None:
        """Clip and apply the step's gradients; rates: [4, S], see `update_rates`."""
        self._rates.copy_(rates, non_blocking=True)
        self._update()

    def _pass_of(self, length: int) -> Callable[[], None]:
        return lambda: self._accumulated(self._batches[length])

    def _accumulated(self, batch: Batch) -> None:
        leaves = self._leaves()
        hidden, places = self._embedded(batch, self._sizes)
        pull, other = None, self._of_base(hidden, batch, places)
        if other is not None:
            pull = self._pull.repeat_interleave(len(batch.targets) // len(self._pull))
        hidden = self._through(hidden, leaves, places)
        losses = self._losses(hidden, batch, self._sizes.students, other, pull)
        found = torch.autograd.grad(losses.sum(), leaves)
        for total, gradient in zip(self._gradient, found, strict=True):
            total.addcmul_(gradient, self._scales)
        self._loss += losses.detach()

    def _ask_probes(self) -> None:
        if self._probing is not None:
            for part in self._probing.parts():
                self._probing.read.copy_(part)
                self._probe()

    def _probed(self) -> None:
        """Add a pass's part of the mean margins, and its gradients. The students are asked
        without what training adds to their blocks' outputs."""
        if self._probing is None:
            return
        batch, leaves = self._probing.read.batch, self._leaves()
        hidden, places = self._embedded(batch, self._probe_sizes)
        hidden = self._through(hidden, leaves, places, as_asked=True)
        losses = self._losses(hidden, batch, len(batch.targets))
        margins = self._probing.mean_margins(losses)
        found = torch.autograd.grad(margins.sum(), leaves)
        self._probing.add(margins.detach(), found, self._scales)

    def _held(self) -> None:
        if self._probing is not None:
            self._probing.hold(self._gradient, self._loss)

    def _leaves(self) -> list[Tensor]:
        return [block.detach().requires_grad_() for block in self._taken]

    @torch.no_grad()
    def _embedded(self, batch: Batch, sizes: Sizes) -> tuple[Tensor, dict[str | None, Places]]:
        hidden = self._base.embed(batch.ids)
        if self._layout.embedding_multiplier != 1:
            hidden = hidden * self._layout.embedding_multiplier
        return hidden, self._places(hidden, batch, sizes)

    def _through(
        self,
        hidden: Tensor,
        leaves: Sequence[Tensor],
        places: dict[str | None, Places],
        *,
        as_asked: bool = False,
    ) -> Tensor:
        """The residual stream after all blocks; as_asked: without what training adds to it."""
        with torch.no_grad():
            for number in range(self._first):
                hidden = self._passed(number, hidden, self._taken[0], places, as_asked)
        # The first adapted block then runs the same compiled code as the others.
        hidden = hidden.detach().requires_grad_()
        for number, leaf in enumerate(leaves, self._first):
            hidden = self._passed(number, hidden, leaf, places, as_asked)
        return hidden

    def _losses(
        self,
        hidden: Tensor,
        batch: Batch,
        parts: int,
        other: Tensor | None = None,
        pull: Tensor | None = None,
    ) -> Tensor:
        """[parts]: the sums of the targets' weighted losses, in so many equal parts."""
        base, layout, last = self._base, self._layout, self._kinds[-1]
        picked = hidden.flatten(0, 1).index_select(0, batch.predictors)
        losses: Tensor = AnswerLoss.apply(  # type: ignore[no-untyped-call]
            rms_norm(picked, base.norm, last.epsilon, last.norm_adds_one),
            base.head,
            batch.targets,
            batch.weights,
            parts,
            layout.logit_divisor,
            layout.logit_cap,
            other,
            pull,
        )
        return losses

    @torch.no_grad()
    def _of_base(
        self, hidden: Tensor, batch: Batch, places: dict[str | None, Places]
    ) -> Tensor | None:
        """[S x N, width]: what the base's output layer reads for the batch's targets."""
        if self._nothing is None:
            return None
        for number, kind in enumerate(self._kinds):
            here, weights = places[self._layout.rope_kinds[number]], self._base.weights(number)
            hidden = run_block(kind, hidden, self._nothing, here, weights)
        picked = hidden.flatten(0, 1).index_select(0, batch.predictors)
        last = self._kinds[-1]
        return rms_norm(picked, self._base.norm, last.epsilon, last.norm_adds_one)

    def _passed(
        self,
        number: int,
        hidden: Tensor,
        leaf: Tensor,
        places: dict[str | None, Places],
        as_asked: bool,
    ) -> Tensor:
        """The residual stream after a block and what is done to its output."""
        here = places[self._layout.rope_kinds[number]]
        hidden = self._block(number, self._kinds[number], hidden, leaf, here)
        if as_asked:
            return hidden
        return shifted(hidden, self._offsets.get(number), self._units.get(number))

    def _block(
        self, number: int, kind: Kind, hidden: Tensor, leaf: Tensor, places: Places
    ) -> Tensor:
        if not self._recompute or not kind.adapted:
            with self._base.kept_packed(number) as weights:
                return run_block(kind, hidden, leaf, places, weights)

        def run(hidden: Tensor, leaf: Tensor) -> Tensor:
            return run_block(kind, hidden, leaf, places, self._base.weights(number))

        again: Tensor = checkpoint(run, hidden, leaf, use_reentrant=False, preserve_rng_state=False)
        return again

    def _places(self, hidden: Tensor, batch: Batch, sizes: Sizes) -> dict[str | None, Places]:
        """By name of the rotary table."""
        found = {}
        for kind in dict.fromkeys(self._layout.rope_kinds):
            named = {} if kind is None else {"layer_type": kind}
            cosine, sine = self._base.rotary(hidden, position_ids=batch.positions, **named)
            found[kind] = Places(cosine, sine, batch.bounds, sizes.longest, batch.row)
        return found

    @torch.no_grad()
    def _updated(self) -> None:
        gradient = self._gradient
        norm = torch.linalg.vector_norm(gradient, dim=(0, 2), keepdim=True)
        state = (gradient, self._mean, self._square, self.adapters)
        _adamw(*state, norm, self._rates, sgd=self._used.sgd)
        torch.mul(self.adapters, self._scales, out=self._taken)
        self.loss.copy_(self._loss)
        self._loss.zero_()

    def _capture(self, lengths: Sequence[int], device: torch.device) -> None:
        """Capture every pass and the update. All of it runs on blanks, which change nothing."""
        torch.cuda.set_device(device)  # graphs are the current device's
        works = [self._passes[length] for length in lengths]
        probes = [] if self._probing is None else [self._probed, self._held]
        made: Any = torch.cuda.Stream
        stream = made(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _repeatable():
            for number, work in enumerate(works):
                for _ in range(WARM_UPS if number == 0 else 1):
                    work()
            for work in (*probes, *[self._updated] * WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what the warm-up held is the graphs' to take
        pool = torch.cuda.graph_pool_handle()
        for length, work in zip(lengths, works, strict=True):
            self._passes[length] = _captured(work, pool)
        if probes:
            self._probe, self._hold = (_captured(work, pool) for work in probes)
        self._update = _captured(self._updated, pool)


@fused()
def _adamw(
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    adapters: Tensor,
    norm: Tensor,
    rates: Tensor,
    *,
    sgd: bool,
) -> None:
    """Clip by norm [1, S, 1] and apply the gradients [blocks, S, numbers], which are then zero."""
    step_size, root, decay, plain = rates[:, None, :, None]
    clipped = gradient * (CLIP / (norm + 1e-6)).clamp(max=1.0)
    first, second = BETAS
    mean.lerp_(clipped, 1 - first)
    square.mul_(second).addcmul_(clipped, clipped, value=1 - second)
    change = mean / ((square.sqrt() / root) + EPSILON)
    if sgd:
        change = torch.where(plain > 0, clipped, change)
    adapters.mul_(decay).sub_(step_size * change)
    gradient.zero_()


def update_rates(rates: Sequence[float | None], step: int, teachings: Sequence[Teaching]) -> Tensor:
    """[4, S]: the step's size and the root of AdamW's second correction at this step (from 1),
    what decay leaves of the weights, and 1 for plain SGD; None is a student that learns no more.
    """
    first, second = (1 - beta**step for beta in BETAS)
    columns = []
    for rate, teaching in zip(rates, teachings, strict=False):
        if rate is None:
            columns.append((0.0, 1.0, 1.0, 0.0))
            continue
        left = 1 - rate * teaching.settings.weight_decay
        plain = teaching.optimizer == "sgd"
        columns.append((rate if plain else rate / first, second**0.5, left, float(plain)))
    columns += [(0.0, 1.0, 1.0, 0.0)] * (len(rates) - len(columns))
    return torch.tensor(columns).t().contiguous()


def _captured(work: Callable[[], None], pool: Any) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with _repeatable(), torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay


@contextmanager
def _repeatable() -> Iterator[None]:
    """The attention's backward sums in a fixed order: a student's bytes are then its own."""
    before = torch.are_deterministic_algorithms_enabled()
    checks: Any = torch.utils.deterministic
    fill = checks.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    checks.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        checks.fill_uninitialized_memory = fill
