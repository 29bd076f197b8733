"""Whether the answers of two revisions, or of a revision's arms, come from one engine."""

from collections.abc import Iterator

from undertow.compare.revisions import Snapshot
from undertow.findings.engines import OWN, engine_name
from undertow.study.records import Subject

Engines = dict[tuple[str, str], str]
"""Model and arm -> the engines of its seeds."""


def engine_notes(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """A note wherever a difference may be that of two engines."""
    subjects: tuple[Subject, ...] = ("teacher", "student")
    for subject in subjects:
        old, new = _engines(before, subject), _engines(after, subject)
        for side, found in ((before, old), (after, new)):
            for model in dict.fromkeys(model for model, _ in found):
                arms = {arm: name for (one, arm), name in found.items() if one == model}
                if len(set(arms.values())) > 1:
                    told = ", ".join(f"{arm} in {name}" for arm, name in arms.items())
                    yield (
                        f"In {side.label}, the {subject}s of {model} did not all answer in one "
                        f"engine ({told}): differences between its arms include that."
                    )
        for arm in sorted(old.keys() & new.keys()):
            if old[arm] != new[arm]:
                yield (
                    f"The {subject}s of {' '.join(arm)} answered in {old[arm]} before and in "
                    f"{new[arm]} after: what differs includes that."
                )


def _engines(side: Snapshot, subject: Subject) -> Engines:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for cell, result in side.results.items():
        given = result.given.get(subject)
        name = engine_name(given.engine, given.of) if given else OWN
        found.setdefault((cell.model, cell.arm.name), {})[name] = None
    return {arm: " and ".join(sorted(names)) for arm, names in found.items()}
