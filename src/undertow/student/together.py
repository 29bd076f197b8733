"""Students of one model, trained in the same steps: own adapters and rows, one frozen base.

The same training as TRL's, row for row (tests compare every step's loss), near the limit of a GPU:
a step of a small model is otherwise thousands of launches of tiny kernels. Says itself where it
does not apply; `training` is the way then.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import DistillationSettings
from undertow.errors import UndertowError
from undertow.models import processes
from undertow.models.families import FamilyLayout, layout_of
from undertow.models.memory import free_memory
from undertow.models.sharing import dealt
from undertow.student import stack
from undertow.student.adapter import check_form
from undertow.student.batch import Share, filled
from undertow.student.block import Kind, kinds_of
from undertow.student.dealing import Passes, deal, rates, sizes_of
from undertow.student.frozen import FrozenBase, packed_bytes
from undertow.student.group_size import free_bytes, group_that_fits
from undertow.student.probing import with_probes
from undertow.student.rows import IGNORED, Row
from undertow.student.step import Step, update_rates
from undertow.student.teaching import Teaching, used_by
from undertow.student.trained import LossHook, Trained

FIXED_ROPES = ("default", "linear", "llama3", "proportional")
READ_EVERY = 10  # steps whose losses are read at once


class Student(NamedTuple):
    """Who is trained, seed of adapter and row order, where the adapter goes, who listens."""

    teaching: Teaching
    seed: int
    adapter: Path
    on_loss: LossHook


class Fit(NamedTuple):
    """What memory has turned out to allow: students and rows of each at a time, and whether
    activations are recomputed."""

    size: int
    at_once: int
    recompute: bool


def why_alone(model: PreTrainedModel, settings: DistillationSettings) -> str | None:
    """Why students of this model cannot be trained together; or None."""
    if processes.count() > 1:
        return "several processes share each student"
    if settings.lora.dropout:
        return "dropout draws its own numbers for each student"
    try:
        layout = layout_of(model)
    except UndertowError as error:
        return error.message
    if layout.attention_cap is not None:
        return f"the attention of {layout.family.title} is capped"
    scaling = getattr(model.config, "rope_parameters", None) or {}
    tables = scaling.values() if any(isinstance(v, dict) for v in scaling.values()) else [scaling]
    if any(table.get("rope_type", "default") not in FIXED_ROPES for table in tables):
        return "its rotary positions depend on the length of the rows"
    layers = stack.adapted_layers(model, settings.lora)
    return layers if isinstance(layers, str) else None


class Together:
    """A trainer of groups; what it has captured serves all groups of the run.

    run: (teaching, seed) of every student of the run, those included that are trained already or
    elsewhere: the shapes are theirs, so that a student's bytes do not depend on what is still due.
    They may differ in all but the adapter's shape.
    size: of a group, as large as memory allows where it is None. fit: of an earlier trainer of the
    same run, in place of finding it again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        run: Sequence[tuple[Teaching, int]],
        *,
        size: int | None = None,
        fit: Fit | None = None,
    ) -> None:
        settings = [teaching.settings for teaching, _ in run]
        lora = settings[0].lora
        layers = stack.adapted_layers(model, lora)
        if isinstance(layers, str):
            raise ValueError(layers)
        if any(one.lora != lora for one in settings):
            raise ValueError("students of one run have adapters of one shape")
        self._model, self._tokenizer, self._run = model, tokenizer, run
        self._lora = lora
        self._layout: FamilyLayout = layout_of(model)
        self._kinds: list[Kind] = kinds_of(
            model, self._layout, lora.rank, lora.alpha / lora.rank, layers, lora.adapted_from
        )
        self._at_once, self._recompute = max(one.batch_size for one in settings), False
        if fit is not None:
            size, self._at_once, self._recompute = fit
        whole = sizes_of(run, 1, self._at_once)
        self.size = size or dealt(len(run), group_that_fits(model, whole, self._kinds[-1]))
        self._step: Step | None = None
        self._sizes = whole
        self._base: FrozenBase | None = None

    @property
    def fit(self) -> Fit:
        return Fit(self.size, self._at_once, self._recompute)

    def train(
        self,
        students: Sequence[Student],
        watch: Callable[[int], None] = lambda _: None,
    ) -> Iterator[list[Trained]]:
        """Train the students, group by group, each list as its group's adapters are on disk.

        The seconds of a student are its share of its group's. watch: called after each step.
        Where memory runs out, groups are halved, then a batch's rows go through in parts, then
        activations are recomputed; OutOfMemoryError where that is not enough.
        """
        waiting = list(students)
        while waiting:
            group = waiting[: self.size]
            started = time.perf_counter()
            losses = self._fitted(group, watch)
            if losses is None:
                self._smaller()
                continue
            share = (time.perf_counter() - started) / len(group)
            waiting = waiting[len(group) :]
            yield [
                Trained(list(enumerate(own, 1)), _tokens(student.teaching), share)
                for student, own in zip(group, losses, strict=True)
            ]

    def close(self) -> None:
        """Let go of what was captured and of all memory beside the model's own."""
        self._step = self._base = None
        free_memory()

    def _fitted(
        self, group: Sequence[Student], watch: Callable[[int], None]
    ) -> list[list[float]] | None:
        """Losses by student, or None where memory did not suffice."""
        try:
            return self._trained(group, watch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # A capture that runs out of memory ends in an error about the capture.
            if not isinstance(error, torch.OutOfMemoryError) and not isinstance(
                error.__context__, torch.OutOfMemoryError
            ):
                raise
        self.close()
        return None

    def _smaller(self) -> None:
        """Take up less memory from now on."""
        if self.size > 1:
            self.size = -(-self.size // 2)
        elif self._at_once > 1:
            self._at_once = -(-self._at_once // 2)
        elif not self._recompute:
            self._recompute = True
        else:
            raise torch.OutOfMemoryError(
                "one row at a time does not fit, recomputing activations; set "
                "distillation.quantization: nf4 or a smaller carrier.max_new_tokens"
            )
        how = f"groups of {self.size}, {self._at_once} rows of each at a time"
        also = ", recomputing activations" if self._recompute else ""
        print(f"out of memory in training: starting again with {how}{also}", file=sys.stderr)

    def _trained(self, group: Sequence[Student], watch: Callable[[int], None]) -> list[list[float]]:
        made = [self._begun(student) for student in group]
        step = self._step = self._step or self._prepared()
        sizes, kind, first = self._sizes, self._kinds[-1], self._lora.adapted_from
        adapters = torch.zeros_like(step.adapters, device="cpu")
        for number, one in enumerate(made):
            stack.write_row(adapters[:, number], kind, first, one.tensors)
        teachings = [student.teaching for student in group]
        step.start(adapters.to(step.adapters.device), teachings)

        lessons = [_Lesson(student, self._at_once) for student in group]
        missing = sizes.students - len(group)
        count = max(len(lesson.steps) for lesson in lessons)
        ledger = _Ledger(lessons, count, step.loss)
        pulled = any(teaching.kl for teaching in teachings)
        step.pull(torch.zeros(sizes.students))
        for number in range(count):
            if pulled:
                pulls = [lesson.pull(number) for lesson in lessons] + [0.0] * missing
                step.pull(_pinned(torch.tensor(pulls)))
            for place in range(len(sizes.tokens[number])):
                shares = [lesson.share(number, place) for lesson in lessons]
                if any(shares):
                    own = max(share.tokens for share in shares if share)
                    tokens = sizes.padded(number, place, own)
                    step.accumulate(filled([*shares, *[None] * missing], tokens, sizes))
            now = [lesson.rate(number) for lesson in lessons] + [None] * missing
            holds = [lesson.hold(number) for lesson in lessons]
            if any(holds):
                step.hold(_pinned(torch.tensor(holds + [0.0] * missing)))
            step.update(_pinned(update_rates(now, number + 1, teachings)))
            ledger.note(number)
            watch(number + 1)
        losses = ledger.closed()
        for number, (student, one) in enumerate(zip(group, made, strict=True)):
            rows = step.adapters[:, number].cpu()
            tensors = stack.read_row(rows, kind, first, one.tensors)
            if student.teaching.finish is not None:
                tensors = student.teaching.finish(tensors)
            stack.save(one._replace(tensors=tensors), student.adapter, self._tokenizer)
        return losses

    def _begun(self, student: Student) -> stack.Fresh:
        """The adapter that a student begins with."""
        made = stack.fresh(self._model, self._lora, student.seed)
        start = student.teaching.start
        if start is None:
            return made
        check_form(made.tensors, start)
        return made._replace(tensors={name: start[name] for name in made.tensors})

    def _prepared(self) -> Step:
        """The step of a group, captured where there is a GPU."""
        model = self._model
        taught = [teaching for teaching, _ in self._run]
        corridors = [teaching.corridor for teaching in taught if teaching.corridor]
        sizes = sizes_of(self._run, self.size, self._at_once)
        self._sizes, grid = with_probes(sizes, corridors)
        if self._base is None:
            keep = model.device.type != "cuda" or packed_bytes(model) < 0.4 * free_bytes(
                model.device
            )
            self._base = FrozenBase(model, self._kinds[0].groups, keep=keep)
        return Step(
            self._base,
            self._layout,
            self._kinds,
            self._sizes,
            model.device,
            model.dtype,
            recompute=self._recompute,
            used=used_by(taught),
            grid=grid,
        )


class _Lesson:
    """What one student does in each step."""

    def __init__(self, student: Student, at_once: int) -> None:
        self.student = student
        self._rows, settings = student.teaching.rows, student.teaching.settings
        self.steps: list[Passes] = deal(len(self._rows), settings, student.seed, at_once)
        # By optimizer step, and the one after the last, which is what transformers reports.
        self.rates = rates(len(self.steps), settings)

    def rate(self, number: int) -> float | None:
        return self.rates[number] if number < len(self.steps) else None

    def pull(self, number: int) -> float:
        """The weight of KL to the base at a step."""
        kl = self.student.teaching.kl
        return 0.0 if kl is None or number >= len(self.steps) else kl.at(number, len(self.steps))

    def hold(self, number: int) -> float:
        """The weight of the corridor's penalty at a step."""
        corridor = self.student.teaching.corridor
        if corridor is None or number >= len(self.steps) or number % corridor.every:
            return 0.0
        return corridor.weight

    def share(self, number: int, place: int) -> Share | None:
        """Its rows in one pass of a step, None where it has none."""
        if number >= len(self.steps) or place >= len(self.steps[number]):
            return None
        rows = self._rows
        passes = self.steps[number]
        count = sum(_learned(rows[row]) for part in passes for row in part)
        return Share([rows[row] for row in passes[place]], max(count, 1))


class _Ledger:
    """Every student's loss at every step, handed on some steps at a time.

    A GPU copies them to the host by itself, and they are read when the next ones are due: reading
    the last ones would let it stand still until the next step is on its way.
    """

    def __init__(self, lessons: Sequence[_Lesson], steps: int, loss: Tensor) -> None:
        self._lessons, self._loss = lessons, loss
        self._on_gpu = loss.device.type == "cuda"
        self._kept = torch.zeros(steps, len(loss), pin_memory=self._on_gpu)
        self._copied: tuple[int, Any] | None = None  # so many steps, once this has happened
        self._losses: list[list[float]] = [[] for _ in lessons]
        self._done = 0
        what = "distill" if len(lessons) == 1 else f"distill {len(lessons)} students"
        self._bar: Any = tqdm(total=steps, desc=what, unit="step", disable=None)

    def note(self, number: int) -> None:
        """The device has been told to do this step."""
        self._kept[number].copy_(self._loss, non_blocking=True)
        if not self._on_gpu:
            self._hand_on(number + 1)
        elif (number + 1) % READ_EVERY == 0:
            before, self._copied = (
                self._copied,
                (number + 1, torch.cuda.current_stream().record_event()),
            )
            if before is not None:
                before[1].synchronize()
                self._hand_on(before[0])

    def closed(self) -> list[list[float]]:
        """The losses by student, once the last step is done."""
        if self._on_gpu:
            torch.cuda.current_stream().synchronize()
        self._hand_on(len(self._kept))
        self._bar.close()
        return self._losses

    def _hand_on(self, until: int) -> None:
        for number, losses in enumerate(self._kept[self._done : until].tolist(), self._done):
            for own, lesson, loss in zip(self._losses, self._lessons, losses, strict=False):
                if number < len(lesson.steps):
                    own.append(loss)
                    lesson.student.on_loss(number + 1, loss, lesson.rates[number + 1])
        self._bar.update(until - self._done)
        self._done = until


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def _learned(row: Row) -> int:
    return sum(label != IGNORED for label in row["labels"][1:])


def _tokens(teaching: Teaching) -> int:
    return sum(len(row["input_ids"]) for row in teaching.rows) * teaching.settings.epochs
