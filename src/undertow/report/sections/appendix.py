"""The report's last sections, by which a reader can check or repeat a study: costs,
configuration, provenance."""

from collections.abc import Mapping

from undertow.analysis.costs import CostTotal, total
from undertow.analysis.summary import Summary
from undertow.config import GgufWeights, HubWeights, ModelSpec, Params
from undertow.lineage.git import Repository
from undertow.report.page import Code, Column, Details, Paragraph, Section, Table
from undertow.study.files import fingerprint
from undertow.study.layout import Layout, Study
from undertow.study.records import Manifest
from undertow.study.results import found_students, read_grid, read_manifest
from undertow.texts.addresses import public
from undertow.texts.yaml import write_yaml

GIBIBYTE = 2**30


def costs_section(summary: Summary, study: Study) -> Section:
    """GPU hours, tokens, memory and money per model and stage, in total, and per cell."""
    # Directions belong to no cell, so the summary of the cells does not hold them.
    directions = [
        total(name, "direction", [manifest.costs], 1)
        for name, manifest in _manifests(study).items()
        if manifest.stage == "direction"
    ]
    each = [
        (cell, total(None, stage, [costs], 1))
        for cell, stages in summary.costs.items()
        for stage, costs in stages.items()
    ]
    devices = {cost.device for stages in summary.costs.values() for cost in stages.values()}
    measures = [Column(title) for title in MEASURES]
    return Section(
        "costs",
        "Costs",
        (
            Paragraph(
                f"Device: {', '.join(sorted(devices)) or 'unknown'}. Seconds are wall clock; "
                "loading stands beside them, because one load may serve many cells. GPU hours are "
                "the time that a device was held, loading included. The total is of the cells."
            ),
            Table(
                "What each stage took, over all cells; the memory is the peak of any one cell",
                (
                    Column("Model", numeric=False),
                    Column("Stage", numeric=False),
                    Column("Cells"),
                    *measures,
                ),
                [
                    (row.model or "total", row.stage or "", str(row.cells), *_measures(row))
                    for row in (*directions, *summary.cost_totals)
                ],
                headers=2,
            ),
            Details(
                "Costs of every cell",
                (
                    Table(
                        "What each stage of each cell took",
                        (Column("Cell", numeric=False), Column("Stage", numeric=False), *measures),
                        [(cell, row.stage or "", *_measures(row)) for cell, row in each],
                        headers=2,
                    ),
                ),
            ),
        ),
    )


MEASURES = (
    "Seconds",
    "Loading, seconds",
    "GPU hours",
    "Tokens generated",
    "Generated per second",
    "Tokens trained",
    "Trained per second",
    "Memory, GiB",
    "Judge tokens",
    "USD",
)


def _measures(row: CostTotal) -> tuple[str, ...]:
    return (
        f"{row.seconds:,.1f}",
        f"{row.load_seconds:,.1f}",
        _known(row.gpu_hours, 3),
        f"{row.tokens_generated:,}",
        _known(row.generated_per_second, 0),
        f"{row.tokens_trained:,}",
        _known(row.trained_per_second, 0),
        f"{row.peak_memory_bytes / GIBIBYTE:.2f}",
        f"{row.judge_tokens:,}",
        _known(row.usd, 2),
    )


def _known(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def configuration_section(params: Params) -> Section:
    """All of params.yaml with every default written out."""
    text = public(write_yaml(params.model_dump(mode="json")))
    return Section(
        "configuration",
        "Exact configuration",
        (
            Paragraph("params.yaml as it was read, with every default written out."),
            Details("params.yaml", (Code("params.yaml with defaults", text),), printed=True),
        ),
    )


def provenance_section(study: Study) -> Section:
    """Commit, versions and digests: what it takes to get the same numbers again."""
    params, layout = study
    grid = read_grid(study) | found_students(study)[0]
    facts = [
        ("Commit", _commit(layout)),
        ("Configuration, SHA-256", fingerprint(params)),
        ("Judge, fingerprint", ", ".join(sorted({r.judge_fingerprint for r in grid.values()}))),
        *((f"Model {name}", _weights(params.model_spec(name))) for name in params.grid.models),
        *_versions(_manifests(study)).items(),
    ]
    text = (Column("What", numeric=False), Column("Value", numeric=False))
    digests = [
        (cell.key, name, value)
        for cell, result in grid.items()
        for name, value in sorted(result.digests.items())
    ]
    return Section(
        "provenance",
        "Provenance",
        (
            Table("Where these numbers come from", text, facts),
            Details(
                "SHA-256 of every cell's inputs and outputs",
                (
                    Table(
                        "SHA-256 of every cell's inputs and outputs",
                        (
                            Column("Cell", numeric=False),
                            Column("Part", numeric=False),
                            Column("SHA-256", numeric=False),
                        ),
                        digests,
                        headers=2,
                    ),
                ),
            ),
        ),
    )


def _weights(spec: ModelSpec) -> str:
    match spec.weights:
        case GgufWeights(file=file, sha256=sha256):
            source = f"{file}, SHA-256 {sha256}"
        case HubWeights(repo=repo, revision=revision):
            source = f"{repo} at {revision}"
        case folder:
            source = f"local folder {folder.path}"
    return f"{source}; {spec.dtype}; licence {spec.licence}"


def _manifests(study: Study) -> dict[str, Manifest]:
    """Every manifest.json of the study, by model or by cell and stage."""
    params, layout = study
    folders = {name: layout.direction(name) for name in params.grid.models}
    for cell in params.all_cells():
        for stage in study.stages_of(cell):
            folders[f"{cell.key} {stage}"] = layout.stage(cell, stage)
    return {
        name: read_manifest(folder)
        for name, folder in folders.items()
        if (folder / "manifest.json").exists()
    }


def _versions(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Package versions; where stages ran under different ones, all of them."""
    seen: dict[str, set[str]] = {}
    for manifest in manifests.values():
        for package, version in manifest.versions.items():
            seen.setdefault(package, set()).add(version)
    return {
        f"Version of {package}": ", ".join(sorted(found)) for package, found in sorted(seen.items())
    }


def _commit(layout: Layout) -> str:
    head = Repository(layout.root).head()
    if head.commit is None:
        return f"unknown: {head.reason}"
    return f"{head.commit}, with uncommitted changes" if head.dirty else head.commit
