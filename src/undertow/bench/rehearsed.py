"""What a rehearsal came to, as a record and as lines to read."""

from undertow.study.records import Record
from undertow.texts.tables import columns, wrapped

GIB = 2**30


class StepRecord(Record):
    """One step; problem: what went wrong, None where nothing did."""

    name: str
    seconds: float
    said: str
    problem: str | None


class StageRecord(Record):
    """All runs of one stage on a base; rates are the last run's, memory is the most of any."""

    model: str
    stage: str
    runs: int
    seconds: float  # of all runs, without loading
    load_seconds: float
    peak_memory_bytes: int
    generated_per_second: float | None
    trained_per_second: float | None


class Rehearsal(Record):
    """rehearsal.json."""

    preset: str
    shapes: str
    device: str
    versions: dict[str, str]
    changed: tuple[str, ...]  # what is not as in the preset, and why
    steps: tuple[StepRecord, ...]
    stages: tuple[StageRecord, ...]
    seconds: float
    peak_device_bytes: int | None  # None on a CPU
    peak_process_bytes: int
    disk_bytes: int

    @property
    def problems(self) -> list[str]:
        return [f"{step.name}: {step.problem}" for step in self.steps if step.problem]


def lines(found: Rehearsal) -> str:
    """For people: the steps, the stages, what was changed, and what went wrong."""
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    text = [
        *wrapped(
            f"Rehearsal of {found.preset}, {found.shapes} shapes, random weights, on "
            f"{found.device}; {versions}. No number of a model means anything."
        ),
        "",
        *columns(("step", "seconds"), ((s.name, f"{s.seconds:.1f}") for s in found.steps)),
        "",
        *columns(
            (
                "base",
                "stage",
                "runs",
                "s a run",
                "loading s",
                "peak GiB",
                "written/s",
                "trained/s",
            ),
            (_row(stage) for stage in found.stages),
            left=2,
        ),
        "",
        f"{found.seconds / 60:.1f} minutes; at most {_held(found)}, "
        f"{found.disk_bytes / GIB:.1f} GiB on disk",
        "",
    ]
    for step in found.steps:
        text += [part for line in step.said.splitlines() for part in _said(step.name, line)]
    text += ["", "Not as in the preset:"]
    text += [part for line in found.changed for part in wrapped(line, indent=2, hang=2)]
    text += ["", "Went wrong:" if found.problems else "Nothing went wrong."]
    text += [part for line in found.problems for part in wrapped(line, indent=2, hang=2)]
    return "\n".join(text) + "\n"


def _said(name: str, line: str) -> list[str]:
    return wrapped(f"{name}: {line}", hang=2)


def _held(found: Rehearsal) -> str:
    process = f"{found.peak_process_bytes / GIB:.1f} GiB of memory"
    if found.peak_device_bytes is None:
        return process
    return f"{found.peak_device_bytes / GIB:.1f} GiB of the GPU, {process}"


def _row(stage: StageRecord) -> tuple[str, ...]:
    return (
        stage.model,
        stage.stage,
        str(stage.runs),
        f"{stage.seconds / stage.runs:.1f}",
        f"{stage.load_seconds:.1f}",
        f"{stage.peak_memory_bytes / GIB:.1f}",
        _rate(stage.generated_per_second),
        _rate(stage.trained_per_second),
    )


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
