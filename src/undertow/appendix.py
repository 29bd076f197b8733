"""The report's last sections, by which a reader can check or repeat a study: costs,
configuration, provenance."""

import subprocess
from collections.abc import Iterable, Mapping
from typing import Literal

import yaml

from undertow.config import GgufWeights, HubWeights, ModelSpec, Params
from undertow.page import Code, Column, Details, Paragraph, Section, Table
from undertow.records import fingerprint
from undertow.results import Costs, Layout, Manifest, read_grid
from undertow.summary import Summary

STAGES: tuple[Literal["steer", "distill", "judge"], ...] = ("steer", "distill", "judge")
GIBIBYTE = 2**30


def costs_section(summary: Summary, params: Params, layout: Layout) -> Section:
    """Tokens, seconds and memory per stage, in total, and per cell."""
    directions = {
        f"{name} (direction)": {"direction": manifest.costs}
        for name, manifest in _manifests(params, layout).items()
        if manifest.stage == "direction"
    }
    by_cell = {**directions, **summary.costs}
    stages = list(dict.fromkeys(stage for costs in by_cell.values() for stage in costs))
    rows = [
        _cost_row(stage, [costs[stage] for costs in by_cell.values() if stage in costs])
        for stage in stages
    ]
    everything = [cost for costs in by_cell.values() for cost in costs.values()]
    devices = ", ".join(sorted({cost.device for cost in everything})) or "unknown"
    caption = "What each stage took, over all cells; the memory is the peak of any one cell"
    measures = [Column(title) for title in MEASURES]
    return Section(
        "costs",
        "Costs",
        (
            Paragraph(f"Device: {devices}. Seconds are wall clock; loading stands beside them."),
            Table(
                caption,
                (Column("Stage", numeric=False), Column("Cells"), *measures),
                [*rows, _cost_row("total", everything, count=str(len(summary.costs)))],
            ),
            Details(
                "Costs of every cell",
                (
                    Table(
                        "What each stage of each cell took",
                        (Column("Cell", numeric=False), Column("Stage", numeric=False), *measures),
                        [
                            (cell, stage, *_measures([cost]))
                            for cell, costs in by_cell.items()
                            for stage, cost in costs.items()
                        ],
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
    "Per second",
    "Tokens trained",
    "Per second",
    "Memory, GiB",
    "Judge tokens",
    "USD",
)


def _cost_row(name: str, costs: list[Costs], count: str | None = None) -> tuple[str, ...]:
    return (name, count or str(len(costs)), *_measures(costs))


def _measures(costs: list[Costs]) -> tuple[str, ...]:
    held = [cost.gpu_seconds for cost in costs if cost.gpu_seconds is not None]
    priced = [cost.usd for cost in costs if cost.usd is not None]
    return (
        f"{sum(cost.seconds for cost in costs):,.1f}",
        f"{sum(cost.load_seconds for cost in costs):,.1f}",
        f"{sum(held) / 3600:,.3f}" if held else "",
        f"{sum(cost.tokens_generated for cost in costs):,}",
        _mean(cost.generated_per_second for cost in costs),
        f"{sum(cost.tokens_trained for cost in costs):,}",
        _mean(cost.trained_per_second for cost in costs),
        f"{max((cost.peak_memory_bytes for cost in costs), default=0) / GIBIBYTE:.2f}",
        f"{sum(cost.prompt_tokens + cost.completion_tokens for cost in costs):,}",
        f"{sum(priced):,.2f}" if priced else "",
    )


def _mean(speeds: Iterable[float | None]) -> str:
    known = [speed for speed in speeds if speed is not None]
    return f"{sum(known) / len(known):,.0f}" if known else ""


def configuration_section(params: Params) -> Section:
    """All of params.yaml with every default written out."""
    text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return Section(
        "configuration",
        "Exact configuration",
        (
            Paragraph("params.yaml as it was read, with every default written out."),
            Details("params.yaml", (Code("params.yaml with defaults", text),), printed=True),
        ),
    )


def provenance_section(params: Params, layout: Layout) -> Section:
    """Commit, versions and digests: what it takes to get the same numbers again."""
    grid = read_grid(layout, params)
    facts = [
        ("Commit", _commit(layout)),
        ("Configuration, SHA-256", fingerprint(params)),
        ("Judge, fingerprint", ", ".join(sorted({r.judge_fingerprint for r in grid.values()}))),
        *((f"Model {name}", _weights(params.model_spec(name))) for name in params.grid.models),
        *_versions(_manifests(params, layout)).items(),
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


def _manifests(params: Params, layout: Layout) -> dict[str, Manifest]:
    """Every manifest.json of the study, by model or by cell and stage."""
    folders = {name: layout.direction(name) for name in params.grid.models}
    for cell in params.cells():
        for stage in STAGES:
            folders[f"{cell.key} {stage}"] = layout.stage(cell, stage)
    return {
        name: Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))
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
    commit = _git(layout, "rev-parse", "HEAD")
    if not commit:
        return "not in a git repository"
    changed = _git(layout, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changed else commit


def _git(layout: Layout, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=layout.root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # git itself is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
