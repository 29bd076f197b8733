"""Whether a trait arm's students stand clear of its controls, in paired estimates.

Every contrast is a difference of two students' readouts on the same prompts and seeds, with
the bootstrap that tau's shifts have: two intervals that overlap can belong to a difference
whose own interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

from undertow.config import Arm, Direction
from undertow.stats.intervals import Estimate
from undertow.stats.seeds import SeedPrior
from undertow.stats.transfer import Readings, Transfer, estimate_transfer
from undertow.study.records import ReadoutName, Record

Against = Literal["control", "random", "opposite"]
Standing = Literal["clear", "less", "apart", "unclear", "opposite way", "same way", "unknown"]
READOUTS: tuple[ReadoutName, ...] = ("margin", "rate")
NO_RANDOM = "no random arm of this strength"
NO_STRENGTH = "its teacher is not steered, so no random direction is of its strength"


class ContrastRecord(Record):
    """The student of an arm that teaches the trait against one reference student.

    Verdicts against control and random: clear (further in the direction that the arm's student
    moved), less (the reference went further), apart (they differ, but the arm's own shift covers
    0), unclear (the interval of the difference covers 0). Against the
    opposite sign: opposite way, same way, or unclear where either student did not clearly move.
    Where a random arm has several directions, the estimate is to one more draw of them.
    """

    model: str
    arm: str
    seed: int | None  # null: over all seeds
    readout: ReadoutName
    against: Against
    reference: str | None  # the arm that it is compared with; null where there is none
    estimate: Estimate  # student minus reference student
    verdict: Standing
    draws: int | None = None  # random directions, where it is their distribution that counts
    teacher: Estimate | None = None  # then also the arm's teacher minus one more draw's


class Directed(Protocol):
    """What an arm of params.yaml and one of the summary have in common."""

    @property
    def direction(self) -> Direction | None: ...

    @property
    def alpha(self) -> float: ...


AnyArm = TypeVar("AnyArm", bound=Directed)


def random_twin(arms: Sequence[AnyArm], arm: Directed) -> AnyArm | None:
    """The random arm of the same size of strength, of the same sign where there is one."""
    if arm.direction is None:
        return None
    for strength in (arm.alpha, -arm.alpha):
        for other in arms:
            if other.direction == "random" and other.alpha == strength:
                return other
    return None


class _Key(NamedTuple):
    model: str
    arm: str
    seed: int | None
    readout: ReadoutName
    against: Against
    reference: str | None

    def record(self, estimate: Estimate, verdict: Standing) -> ContrastRecord:
        return ContrastRecord(**self._asdict(), estimate=estimate, verdict=verdict)


ReadingsOf = Callable[[str, Arm, Arm, int | None, ReadoutName], Readings]
Priors = Mapping[tuple[str, ReadoutName], SeedPrior | None]


def contrast_records(
    models: Sequence[str],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    shifts: Mapping[tuple[str, str, int | None, ReadoutName], Estimate],
    readings: ReadingsOf,
    priors: Priors,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[ContrastRecord, ...]:
    """All contrasts of a grid, over all seeds and for each seed alone.

    shifts: (model, arm, seed or None, readout) -> the student's shift against the control
    student. readings(model, reference, arm, seed or None, readout) reads both arms on the
    same prompts, with the reference's students in the place of the control students. priors: of
    the variances between seeds, by model and readout.
    """
    chosen: list[tuple[str, Arm, int | None, ReadoutName]] = [
        (model, arm, one, readout)
        for model in models
        for arm in arms
        if arm.teaches_trait
        for one in (None, *seeds)
        for readout in READOUTS
    ]
    groups: dict[_Key, Readings] = {}
    for model, arm, one, readout in chosen:
        for against, reference in _references(arm, arms):
            key = _Key(model, arm.name, one, readout, against, reference.name)
            groups[key] = _students(readings(model, reference, arm, one, readout))
    found: dict[_Key, Transfer] = {}
    parts: dict[tuple[str, ReadoutName, bool], dict[_Key, Readings]] = {}
    for key, each in groups.items():
        parts.setdefault((key.model, key.readout, key.against == "random"), {})[key] = each
    for (model, readout, is_random), part in parts.items():
        found |= estimate_transfer(
            part,
            # Random students differ by more than seeds: each may have a direction of its own.
            prior=None if is_random else priors.get((model, readout)),
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
    control = next(arm.name for arm in arms if arm.is_control)
    records: list[ContrastRecord] = []
    for model, arm, one, readout in chosen:
        own = shifts[model, arm.name, one, readout]
        key = _Key(model, arm.name, one, readout, "control", control)
        records.append(key.record(own, standing(own, own)))
        if random_twin(arms, arm) is None:
            key = key._replace(against="random", reference=None)
            why = NO_STRENGTH if arm.direction is None else NO_RANDOM
            records.append(key.record(Estimate.unknown(why), "unknown"))
        for against, reference in _references(arm, arms):
            key = key._replace(against=against, reference=reference.name)
            estimate = found[key].student_shift
            if against == "opposite":
                whole = shifts[model, reference.name, None, readout]
                theirs = shifts.get((model, reference.name, one, readout), whole)
                verdict = mirror(own, theirs)
            else:
                verdict = standing(own, estimate)
            records.append(key.record(estimate, verdict))
    return tuple(records)


def _references(arm: Arm, arms: Sequence[Arm]) -> list[tuple[Against, Arm]]:
    found: list[tuple[Against, Arm]] = []
    if arm.direction is None:
        return found
    random = random_twin(arms, arm)
    if random is not None:
        found.append(("random", random))
    found += [
        ("opposite", other)
        for other in arms
        if other.direction == arm.direction and other.alpha == -arm.alpha
    ]
    return found


def _students(arms: Readings) -> Readings:
    """The two arms' students alone: what a teacher was not read on may still be compared."""
    return Readings(
        base=arms.control[0], teacher=arms.student, control=arms.control, student=arms.student
    )


def standing(own: Estimate, difference: Estimate) -> Standing:
    """What the difference to a reference says of a student that moved by `own`."""
    if own.value is None or difference.value is None:
        return "unknown"
    if not difference.excludes_zero:
        return "unclear"
    if not own.excludes_zero:
        return "apart"  # the side that the arm's student moved to is not known
    # Apart is not enough: a random direction may move the student further than the trait.
    return "clear" if (difference.value > 0) == (own.value > 0) else "less"


def mirror(own: Estimate, theirs: Estimate) -> Standing:
    """Whether students of opposite signs moved to opposite sides."""
    if own.value is None or theirs.value is None:
        return "unknown"
    if not (own.excludes_zero and theirs.excludes_zero):
        return "unclear"
    return "same way" if (own.value > 0) == (theirs.value > 0) else "opposite way"
