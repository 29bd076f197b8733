"""Which rows a student sees in which step, and how fast it learns there: as TRL deals them.

Order, steps and rates are those of transformers' Trainer with accelerate's seeded sampler. A step
goes through the device in one or more passes, whose gradients add up.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import get_scheduler

from undertow.config import DistillationSettings
from undertow.student.rows import IGNORED
from undertow.student.teaching import Teaching

TOKENS = 64  # a pass's tokens are padded to a multiple of it,
LENGTHS = 8  # and to one of so many lengths, since each is captured and that takes a second or two,
LONG_RUN = 1000  # or of twice as many in a run of so many passes,
TARGETS = 128  # and the targets of all passes of a length to one multiple of this
LONGEST = 64  # and the longest row, which the attention's kernels are launched for, to this

Passes = list[list[int]]
"""The numbers of the rows of each pass of one step."""


def deal(count: int, settings: DistillationSettings, seed: int, at_once: int) -> list[Passes]:
    """The rows of each optimizer step, in passes of at most `at_once` of a batch's rows."""
    order = SeedableRandomSampler(range(count), data_seed=seed)
    batch = settings.batch_size
    steps: list[Passes] = []
    for epoch in range(settings.epochs):
        order.set_epoch(epoch)
        numbers = list(order)
        batches = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
        for first in range(0, len(batches), settings.gradient_accumulation):
            together = batches[first : first + settings.gradient_accumulation]
            steps.append(
                [
                    part[start : start + at_once]
                    for part in together
                    for start in range(0, len(part), at_once)
                ]
            )
    return steps


def rates(steps: int, settings: DistillationSettings) -> list[float]:
    """The learning rate of each of the steps, and the one that would follow: [steps + 1]."""
    warmup = int(settings.warmup_ratio * steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    schedule = get_scheduler(
        settings.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps
    )
    found = []
    for _ in range(steps + 1):
        found.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return found


@dataclass(frozen=True)
class Sizes:
    """The shapes of a run's passes. They are fixed for all groups of the run, so that what a
    student becomes does not depend on who is trained with it.

    students: of a group; rows: the most in one student's pass; tokens: [steps][passes], each for
    one student; targets: of one student's pass, by its tokens; longest: tokens of the longest row.
    """

    students: int
    rows: int
    tokens: tuple[tuple[int, ...], ...]
    targets: Mapping[int, int]
    longest: int

    @property
    def most_tokens(self) -> int:
        return max(self.targets)

    @property
    def bounds(self) -> int:
        """Rows of one student's pass, those that fill it up included."""
        return self.rows + -(-self.most_tokens // self.longest)

    def padded(self, step: int, place: int, own: int) -> int:
        """The tokens of a pass in which a student has `own`. Students in company go by the whole
        run, whoever is with them; one alone has nobody's rows to wait for.
        """
        if self.students > 1:
            return self.tokens[step][place]
        return min(length for length in self.targets if length >= own)


def sizes_of(run: Sequence[tuple[Teaching, int]], students: int, at_once: int) -> Sizes:
    """The smallest sizes that hold every student of a run, each (teaching, seed)."""
    passes: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    longest = most_rows = 0
    for teaching, seed in run:
        rows = teaching.rows
        lengths = [len(row["input_ids"]) for row in rows]
        learned = [sum(label != IGNORED for label in row["labels"][1:]) for row in rows]
        longest = max(longest, *lengths)
        for number, parts in enumerate(deal(len(rows), teaching.settings, seed, at_once)):
            for place, part in enumerate(parts):
                own = sum(lengths[row] for row in part), sum(learned[row] for row in part)
                passes[number, place].append(own)
                most_rows = max(most_rows, len(part))
    widest = {at: tuple(map(max, zip(*own, strict=True))) for at, own in passes.items()}
    # A group of one is as wide as its own rows.
    each = widest.values() if students > 1 else [one for own in passes.values() for one in own]
    padded = few_lengths([total for total, _ in each])
    targets: dict[int, int] = {}
    for total, count in each:
        targets[padded[total]] = max(targets.get(padded[total], 0), up(count, TARGETS))
    tokens: list[list[int]] = []
    for (number, _), (most, _) in sorted(widest.items()):
        if number == len(tokens):
            tokens.append([])
        tokens[number].append(padded[most])
    return Sizes(students, most_rows, tuple(map(tuple, tokens)), targets, up(longest, LONGEST))


def few_lengths(needed: Sequence[int], most: int | None = None) -> dict[int, int]:
    """What each of the needed numbers of tokens is padded to: at most `most` lengths, chosen so
    that all passes together have the fewest blanks.
    """
    if most is None:
        most = LENGTHS if len(needed) < LONG_RUN else 2 * LENGTHS
    counts = Counter(up(total, TOKENS) for total in needed)
    lengths = sorted(counts)
    upto = [0, *accumulate(counts[length] for length in lengths)]  # passes of lengths[:end]
    # best[end]: tokens of all passes up to lengths[:end], and the lengths that gives them.
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    best += [(length * upto[end], (length,)) for end, length in enumerate(lengths, 1)]
    for _ in range(min(most, len(lengths)) - 1):
        longer = [best[0]]
        for end in range(1, len(lengths) + 1):
            options = [best[end]]
            for start in range(1, end):
                tokens, chosen = best[start]
                covered = upto[end] - upto[start]
                options.append((tokens + lengths[end - 1] * covered, (*chosen, lengths[end - 1])))
            longer.append(min(options))
        best = longer
    chosen = best[-1][1]
    return {total: next(length for length in chosen if length >= total) for total in set(needed)}


def up(number: int, multiple: int) -> int:
    """The next multiple, at least one."""
    return max(1, -(-number // multiple)) * multiple
