"""The report on the controls: does a trait arm stand clear of them, by paired differences?"""

from collections.abc import Sequence

from undertow.analysis.contrasts import Against, ContrastRecord, Standing
from undertow.analysis.summary import Summary
from undertow.findings.numbers import readout_title, shift_text
from undertow.report.charts.shifts import random_figure
from undertow.report.page import Column, Details, Items, Paragraph, Part, Section, Table

WHY = (
    "Fine-tuning on harmless text moves a student by itself, and a random direction of the same "
    "norm also disturbs a teacher. Only what goes beyond both belongs to the trait. Differences "
    "are between students on the same prompts and seeds: two intervals that overlap can belong "
    "to a difference that excludes 0."
)
TITLES: dict[Against, str] = {
    "control": "Student minus control student",
    "random": "Student minus random direction's",
    "opposite": "Student minus opposite sign's",
}
STANDINGS: dict[Standing, str] = {
    "clear": "clear",
    "less": "less far than it",
    "apart": "differs, but its own shift covers 0",
    "unclear": "not clear",
    "opposite way": "moved the opposite way",
    "same way": "moved the same way",
    "unknown": "unknown",
}

Key = tuple[str, str, int | None, str]  # model, arm, seed, readout


def controls_section(summary: Summary) -> Section:
    """A row per trait arm and readout, the same for every seed, and trait beside random."""
    parts: list[Part] = [Paragraph(WHY)]
    over_all = [contrast for contrast in summary.contrasts if contrast.seed is None]
    each = [contrast for contrast in summary.contrasts if contrast.seed is not None]
    if over_all:
        caption = "Every trait arm against its controls, over all seeds. " + _caution(summary)
        parts.append(_table(summary, caption, over_all))
        parts += _reasons(over_all)
    if len({contrast.seed for contrast in each}) > 1:
        caption = "Every seed alone against its controls. " + _caution(summary)
        parts.append(Details("Every seed alone", (_table(summary, caption, each, seeds=True),)))
    figure = random_figure(summary)
    missing = Paragraph("No strength was run along both the trait and a random direction.")
    return Section("controls", "Controls", (*parts, figure or missing))


def _caution(summary: Summary) -> str:
    chance = 100 * (1 - summary.confidence)
    return (
        "Intervals are per cell, not simultaneous: where nothing is there, about "
        f"{chance:.2g} % of them exclude 0 by chance"
    )


def _table(
    summary: Summary, caption: str, contrasts: Sequence[ContrastRecord], *, seeds: bool = False
) -> Table:
    rows: dict[Key, dict[Against, ContrastRecord]] = {}
    for contrast in contrasts:
        row = (contrast.model, contrast.arm, contrast.seed, contrast.readout)
        rows.setdefault(row, {})[contrast.against] = contrast
    shown = [against for against in TITLES if any(against in found for found in rows.values())]
    words = ["Model", "Arm", *(["Seed"] if seeds else []), "Readout"]
    columns = [Column(word, numeric=False) for word in words]
    for against in shown:
        columns += [Column(TITLES[against]), Column(f"against {against}", numeric=False)]
    cells = []
    for (model, arm, seed, _), found in rows.items():
        first = next(iter(found.values()))
        names = [model, arm, *([str(seed)] if seeds else [])]
        names.append(readout_title(summary, first.readout))
        cells.append((*names, *(text for each in shown for text in _cells(found.get(each)))))
    return Table(caption, tuple(columns), cells, headers=len(words))


def _cells(contrast: ContrastRecord | None) -> tuple[str, str]:
    if contrast is None:
        return "", ""
    if contrast.estimate.value is None:
        return "", STANDINGS[contrast.verdict]
    return shift_text(contrast.estimate, contrast.readout), STANDINGS[contrast.verdict]


def _reasons(contrasts: Sequence[ContrastRecord]) -> list[Part]:
    """Why a difference is unknown, with the arms that it holds for."""
    arms: dict[str, dict[str, None]] = {}
    for contrast in contrasts:
        if contrast.estimate.reason:
            arms.setdefault(contrast.estimate.reason, {})[f"{contrast.model} {contrast.arm}"] = None
    texts = tuple(f"{', '.join(names)}: unknown, {reason}." for reason, names in arms.items())
    return [Items(texts)] if texts else []
