"""What simulated studies say of the statistics, as Markdown tables."""

from collections.abc import Sequence

import numpy as np

from undertow.stats.dose import DoseVerdict
from undertow.stats.validate import CoverageRow, DoseVerdictRow
from undertow.stats.validate_family import FamilyRow
from undertow.stats.validate_moderation import ModerationRow
from undertow.texts.tables import markdown_table

VERDICTS: tuple[DoseVerdict, ...] = ("threshold", "continuous", "none", "undecided")


def coverage_markdown(rows: Sequence[CoverageRow]) -> str:
    """One line per scenario, seeds and seed effect, one column per number of prompts.

    Cells hold the mean coverage in percent, its range over tau, and the share of undefined
    where there is any.
    """
    prompts = sorted({row.prompts for row in rows})
    groups: dict[tuple[str, int, float], dict[int, list[CoverageRow]]] = {}
    for row in rows:
        group = groups.setdefault((row.scenario, row.seeds, row.seed_sd), {})
        group.setdefault(row.prompts, []).append(row)
    head = ("scenario", "seeds", "seed sd", *(f"n = {n}" for n in prompts))
    lines = [
        (scenario, str(seeds), f"{sd:g}", *(_coverage(group.get(n, [])) for n in prompts))
        for (scenario, seeds, sd), group in groups.items()
    ]
    return markdown_table(head, lines) + "\n"


def _coverage(rows: Sequence[CoverageRow]) -> str:
    defined = [row for row in rows if row.undefined < 1]
    if not defined:
        return "undefined"
    shares = [100 * row.coverage for row in defined]
    cell = f"{np.mean(shares):.1f} ({min(shares):.1f}-{max(shares):.1f})"
    if defined[0].seeds == 1 and defined[0].seed_sd > 0:
        elsewhere = 100 * float(np.mean([row.coverage_all_seeds for row in defined]))
        cell += f", all seeds {elsewhere:.0f}"
    undefined = 100 * float(np.mean([row.undefined for row in rows]))
    return cell + (f", {undefined:.0f} undefined" if undefined >= 0.5 else "")


def dose_markdown(rows: Sequence[DoseVerdictRow]) -> str:
    """Shares of the verdicts in percent, the right one in bold."""
    lines = []
    for row in rows:
        found = (row.threshold, row.continuous, row.none, row.undecided)
        shares = {name: f"{100 * share:.0f}" for name, share in zip(VERDICTS, found, strict=True)}
        shares[row.right] = f"**{shares[row.right]}**"
        lines.append((str(row.seeds), f"{row.seed_sd:g}", row.truth, *shares.values()))
    return markdown_table(("seeds", "seed sd", "truth", *VERDICTS), lines) + "\n"


def moderation_markdown(rows: Sequence[ModerationRow]) -> str:
    """Coverage in percent, and widths relative to the intervals of arms alone."""
    head = (
        *("arms", "seeds", "controls", "cv", "alone", "moderated", "width", "all arms at once"),
        *("Smyth", "width"),
    )
    lines = [
        (
            str(row.arms),
            str(row.seeds),
            str(row.control_seeds),
            f"{row.cv:g}",
            *_percent(row.alone, row.moderated),
            f"{row.width:.3f}",
            *_percent(row.together, row.smyth),
            f"{row.smyth_width:.3f}",
        )
        for row in rows
    ]
    return markdown_table(head, lines) + "\n"


def family_markdown(rows: Sequence[FamilyRow]) -> str:
    """Shares in percent, one line per kind of study; widths as in moderation_markdown."""
    head = (
        *("students", "seeds", "controls", "cv", "alone", "moderated", "width", "tau"),
        *("undefined", "all shifts", "all tau", "pooled tau", "one tau rejected"),
    )
    lines = [
        (
            row.name,
            str(row.seeds),
            str(row.control_seeds),
            "-" if row.cv is None else f"{row.cv:g}",
            *_percent(row.alone, row.moderated),
            f"{row.width:.2f}",
            *_percent(row.tau, row.undefined, row.together, row.taus_together),
            *_percent(row.pooled, row.misfit),
        )
        for row in rows
    ]
    return markdown_table(head, lines) + "\n"


def _percent(*shares: float) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]
