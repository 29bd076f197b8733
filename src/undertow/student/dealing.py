"""Which rows a student sees in which step, and how fast it learns there: as TRL deals them.

Order, steps and rates are those of transformers' Trainer with accelerate's seeded sampler. A step
goes through the device in one or more passes, whose gradients add up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import get_scheduler

from undertow.config import DistillationSettings
from undertow.student.rows import IGNORED
from undertow.student.teaching import Teaching

TOKENS = 64  # a pass's tokens are padded to a multiple of it,
LENGTHS = 8  # and to one of so many lengths, since each is captured and that takes a second or two
TARGETS = 128  # and its targets to a multiple of this
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
    one student; targets: of one student's pass; longest: tokens of the longest row.
    """

    students: int
    rows: int
    tokens: tuple[tuple[int, ...], ...]
    targets: int
    longest: int

    @property
    def most_tokens(self) -> int:
        return max(max(step) for step in self.tokens)

    @property
    def bounds(self) -> int:
        """Rows of one student's pass, those that fill it up included."""
        return self.rows + -(-self.most_tokens // self.longest)


def sizes_of(run: Sequence[tuple[Teaching, int]], students: int, at_once: int) -> Sizes:
    """The smallest sizes that hold every student of a run, each (teaching, seed)."""
    tokens: list[list[int]] = []
    targets = longest = most_rows = 0
    for teaching, seed in run:
        rows = teaching.rows
        lengths = [len(row["input_ids"]) for row in rows]
        learned = [sum(label != IGNORED for label in row["labels"][1:]) for row in rows]
        longest = max(longest, *lengths)
        for number, passes in enumerate(deal(len(rows), teaching.settings, seed, at_once)):
            if number == len(tokens):
                tokens.append([])
            for place, part in enumerate(passes):
                if place == len(tokens[number]):
                    tokens[number].append(0)
                total = sum(lengths[row] for row in part)
                tokens[number][place] = max(tokens[number][place], total)
                targets = max(targets, sum(learned[row] for row in part))
                most_rows = max(most_rows, len(part))
    padded = few_lengths([total for step in tokens for total in step])
    return Sizes(
        students=students,
        rows=most_rows,
        tokens=tuple(tuple(padded[total] for total in step) for step in tokens),
        targets=_up(targets, TARGETS),
        longest=_up(longest, LONGEST),
    )


def few_lengths(needed: Sequence[int], most: int = LENGTHS) -> dict[int, int]:
    """What each of the needed numbers of tokens is padded to: at most `most` lengths, chosen so
    that all passes together have the fewest blanks.
    """
    counts = Counter(_up(total, TOKENS) for total in needed)
    lengths = sorted(counts)
    # best[end]: tokens of all passes up to lengths[:end], and the lengths that gives them.
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for length in lengths:
        best.append((length * sum(counts[one] for one in lengths if one <= length), (length,)))
    for _ in range(min(most, len(lengths)) - 1):
        longer = [best[0]]
        for end in range(1, len(lengths) + 1):
            options = [best[end]]
            for start in range(1, end):
                tokens, chosen = best[start]
                covered = sum(counts[one] for one in lengths[start:end])
                options.append((tokens + lengths[end - 1] * covered, (*chosen, lengths[end - 1])))
            longer.append(min(options))
        best = longer
    chosen = best[-1][1]
    return {total: next(length for length in chosen if length >= total) for total in set(needed)}


def _up(number: int, multiple: int) -> int:
    return max(1, -(-number // multiple)) * multiple
