"""From the carriers of a model to its audit: pairing with the control, pooling over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from undertow.carrier.separability import Texts, format_auc, words_auc
from undertow.carrier.traces import SHARES, Reading, Traces, new_phrases, read_traces
from undertow.carrier.verdict import check
from undertow.config import Arm, AuditSettings
from undertow.stats.paired import Floats, in_both_carriers
from undertow.study.audit_records import (
    ArmAudit,
    CarrierMeasures,
    CarrierVerdict,
    MeasureName,
    Reference,
    SeedAudit,
)
from undertow.study.records import Response


class Carrier(NamedTuple):
    """What one student is trained on; digest is the SHA-256 of the whole, unfiltered file."""

    seed: int
    rows: Sequence[Response]
    answers: int
    rejected: int
    removed: int
    digest: str


class Pairing(NamedTuple):
    """Answers of a carrier and of its reference, row by row; prompts name the clusters."""

    carrier: Carrier
    reference: Carrier
    prompts: list[str]
    arm_rows: list[Response]
    reference_rows: list[Response]


class _Read(NamedTuple):
    pairing: Pairing
    arm: Traces
    reference: Traces


def audit_arm(
    arm: Arm,
    carriers: Sequence[Carrier],
    controls: Sequence[Carrier],
    how: Reading,
    bounds: AuditSettings,
) -> ArmAudit:
    """Audit one arm; carriers and controls are in the order of the same seeds.

    The control is compared with itself: seeds by twos, or two random halves of one seed's prompts.
    """
    pairings: list[Pairing]
    reference: Reference
    if not arm.is_control:
        pairings = [pair(*two) for two in zip(carriers, controls, strict=True)]
        reference = "control"
    elif len(carriers) > 1:
        pairings = [pair(*two) for two in zip(carriers[::2], carriers[1::2], strict=False)]
        reference = "control, another seed"
    else:
        pairings, reference = [halves(carriers[0])], "control, the other half"
    read = [
        _Read(p, read_traces(p.arm_rows, how), read_traces(p.reference_rows, how)) for p in pairings
    ]
    pooled = _comparison(read, bounds)
    leaks, gaps = check(pooled, bounds)
    # Halves of a control are too few rows to exclude much; nothing is claimed of it either.
    passes = not leaks and (arm.is_control or not gaps)
    verdict: CarrierVerdict | None = None
    if arm.teaches_trait:
        verdict = "subliminal" if passes else "overt" if leaks else "too few rows"
    return ArmAudit(
        arm=arm.name,
        direction=arm.direction,
        strength=arm.strength,
        reference=reference,
        verdict=verdict,
        passes=passes,
        leaks=leaks,
        gaps=gaps,
        pooled=pooled,
        seeds=tuple(_seed(each, pooled, bounds, len(read)) for each in read),
    )


def pair(carrier: Carrier, reference: Carrier) -> Pairing:
    """Answers to the same prompts; a prompt that one of the two lacks is left out."""
    others = {row.id: row for row in reference.rows}
    rows = [row for row in carrier.rows if row.id in others]
    return Pairing(
        carrier, reference, [row.id for row in rows], rows, [others[row.id] for row in rows]
    )


def halves(carrier: Carrier) -> Pairing:
    """Two random halves of one carrier's prompts, as if they were answers to the same ones.

    Halves in file order would not do: prompts of one kind may stand at every second place.
    """
    order = np.random.default_rng(carrier.seed).permutation(len(carrier.rows))
    half = len(order) // 2
    first = [carrier.rows[index] for index in order[:half]]
    second = [carrier.rows[index] for index in order[half : 2 * half]]
    return Pairing(carrier, carrier, [row.id for row in first], first, second)


def _seed(read: _Read, pooled: CarrierMeasures, bounds: AuditSettings, seeds: int) -> SeedAudit:
    carrier, reference = read.pairing.carrier, read.pairing.reference
    return SeedAudit(
        seed=carrier.seed,
        reference_seed=reference.seed,
        kept=len(carrier.rows),
        answers=carrier.answers,
        rejected=carrier.rejected,
        removed=carrier.removed,
        carrier=carrier.digest,
        reference_carrier=reference.digest,
        comparison=pooled if seeds == 1 else _comparison([read], bounds),
    )


def _comparison(read: Sequence[_Read], bounds: AuditSettings) -> CarrierMeasures:
    numbers = {id: n for n, id in enumerate(dict.fromkeys(_prompts(read)))}
    texts = _texts(read, numbers)
    arm = _values([each.arm for each in read], [each.reference for each in read])
    reference = _values([each.reference for each in read], [each.arm for each in read])
    return CarrierMeasures(
        prompts=len(numbers),
        rows=sum(len(each.pairing.prompts) for each in read),
        measures={
            name: in_both_carriers(
                _matrix(read, numbers, values),
                _matrix(read, numbers, reference[name]),
                bounds.confidence,
                share=name in SHARES,
            )
            for name, values in arm.items()
        },
        words_auc=words_auc(texts, bounds.confidence),
        format_auc=format_auc(texts, bounds.confidence),
    )


def _values(traces: Sequence[Traces], others: Sequence[Traces]) -> dict[MeasureName, list[Floats]]:
    """Measure -> one array per seed, with what takes the other carrier to know."""
    values = {name: [each.values[name] for each in traces] for name in traces[0].values}
    said = [phrases for other in others for phrases in other.phrases]
    values["new_phrases"] = [new_phrases(each.phrases, said) for each in traces]
    return values


def _prompts(read: Sequence[_Read]) -> list[str]:
    return [id for each in read for id in each.pairing.prompts]


def _matrix(read: Sequence[_Read], numbers: Mapping[str, int], values: Sequence[Floats]) -> Floats:
    """[seeds, prompts]; NaN where a seed has no pair for a prompt."""
    matrix = np.full((len(read), len(numbers)), np.nan)
    for row, (each, known) in enumerate(zip(read, values, strict=True)):
        matrix[row, [numbers[id] for id in each.pairing.prompts]] = known
    return matrix


def _texts(read: Sequence[_Read], numbers: Mapping[str, int]) -> Texts:
    pairings = [each.pairing for each in read]
    prompts = [numbers[id] for id in _prompts(read)]
    return Texts(
        answers=[row for p in pairings for row in p.arm_rows]
        + [row for p in pairings for row in p.reference_rows],
        labels=np.repeat(np.array([1, 0], dtype=np.int64), len(prompts)),
        prompts=np.array(prompts * 2, dtype=np.int64),
    )
