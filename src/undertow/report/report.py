"""report.html: one study on one page, complete in itself.

Each section is a function from the summary to a page.Section, in a module of its own where it is
long. No number is computed here that the summary does not hold.
"""

from collections.abc import Sequence

from undertow.analysis.judges import JudgeEvidence
from undertow.analysis.summary import Summary
from undertow.findings.numbers import (
    LEVELS,
    RATIO,
    READOUTS,
    SCALES,
    UNIT_NAMES,
    Written,
    aligned,
    arm_name,
    arm_strength,
    readout_title,
    seeds_text,
    titled,
)
from undertow.report.charts.rates import scatter_figure
from undertow.report.charts.tau import tau_figure, undefined
from undertow.report.page import (
    Column,
    Definition,
    Definitions,
    Heading,
    Items,
    Paragraph,
    Part,
    Section,
    Table,
    render_page,
)
from undertow.report.sections.answer import answer_section, numbers_section
from undertow.report.sections.appendix import (
    configuration_section,
    costs_section,
    provenance_section,
)
from undertow.report.sections.audit import audit_section
from undertow.report.sections.controls import controls_section
from undertow.report.sections.defences import defence_sections
from undertow.report.sections.dose import dose_section
from undertow.report.sections.effects import effects_section, incoherent
from undertow.report.sections.judges import judges_section
from undertow.report.sections.mechanism import mechanism_section
from undertow.report.sections.rounds import round_sections
from undertow.report.sections.samples import Sample, samples_section
from undertow.report.sections.students import student_sections
from undertow.stats.intervals import Estimate
from undertow.study.layout import Study
from undertow.study.records import ReadoutName

NO_EVIDENCE = JudgeEvidence(sensitivity=None, corrected=())
FIGURE_SPACE = "\N{FIGURE SPACE}"


def render_report(
    summary: Summary,
    study: Study,
    *,
    responses: Sequence[Sample] | None,
    harmful: bool,
    reveal: bool = False,
    judges: JudgeEvidence = NO_EVIDENCE,
) -> str:
    """The page as HTML text; the same input gives the same bytes.

    responses: from samples.read_samples, or None to leave them out; those of a `harmful` trait
    appear only with `reveal`, and then folded away.
    Raises DataError where a cell of the grid has no result.
    """
    sections = [
        answer_section(summary),
        numbers_section(summary),
        meaning_section(summary),
        strengths_section(summary),
        tau_section(summary),
        dose_section(summary),
        rates_section(summary),
        controls_section(summary),
        *student_sections(summary),
        *defence_sections(summary),
        *round_sections(summary),
        audit_section(summary),
        effects_section(summary),
        mechanism_section(summary),
        judges_section(summary, judges),
        samples_section(responses, harmful=harmful, reveal=reveal),
        costs_section(summary, study),
        configuration_section(study.params),
        provenance_section(study),
    ]
    return render_page(f"Transfer of {summary.trait}", _subtitle(summary), sections)


def _subtitle(summary: Summary) -> str:
    # Models of one study have the same seeds, unless some of their cells are missing.
    seeds = "; ".join(dict.fromkeys(seeds_text(view) for view in summary.views.values()))
    prompts = max((arm.margin.prompts for arm in summary.arms), default=0)
    return (
        f"{', '.join(summary.models)}. Judge: {summary.judge}. "
        f"{prompts} evaluation prompts; {seeds}; "
        f"{100 * summary.confidence:.4g} % intervals from {summary.resamples:,} resamples. "
        "tau: how much of the teacher's shift its student has, beyond the control student."
    )


def strengths_section(summary: Summary) -> Section:
    """Every arm with its levels, shifts and tau, by both readouts."""
    parts: list[Part] = [
        Paragraph(
            f"Positive is more {summary.rate_name}. The control arm is the student of the "
            "unsteered teacher: its student is what student shifts are measured from, its "
            "teacher what teacher shifts are measured from."
        )
    ]
    for model in summary.models:
        parts.append(Heading(model))
        for readout in READOUTS:
            parts += _strengths(summary, model, readout)
    return Section("strengths", "All strengths", tuple(parts), open=True)


def _strengths(summary: Summary, model: str, readout: ReadoutName) -> list[Part]:
    scale, title = SCALES[readout], readout_title(summary, readout)
    level, arms = LEVELS[readout], summary.views[model].arms
    transfers = [arm.by(readout) for arm in arms]
    moved = [transfer for arm, transfer in zip(arms, transfers, strict=True) if not arm.is_control]
    shifts = zip(
        aligned([t.tau for t in moved], RATIO, signed=False),
        aligned([t.student_shift for t in moved], scale, signed=True),
        aligned([t.teacher_shift for t in moved], scale, signed=True),
        strict=True,
    )
    rows = []
    for arm, transfer in zip(arms, transfers, strict=True):
        levels = (level.number(transfer.teacher), level.number(transfer.student))
        cells = ("",) * 6 if arm.is_control else tuple(c for w in next(shifts) for c in _cells(w))
        rows.append((arm_name(arm), arm_strength(arm), *cells, *levels))
    # tau first: on a narrow screen the columns to the right are out of sight.
    names = ["tau", "interval"]
    for name in (f"Student shift, {scale.unit}", f"Teacher shift, {scale.unit}"):
        names += [name, "interval"]
    names += [f"Teacher, {level.unit}", f"Student, {level.unit}"]
    table = Table(
        f"{model} by {title} ({UNIT_NAMES[readout]}): {_counted(summary, model, readout)}",
        (
            Column("Arm", numeric=False),
            Column("Strength"),
            *(Column(name) for name in names),
        ),
        rows,
        headers=2,
    )
    reasons = (*undefined(summary, model, readout), *incoherent(summary, model))
    return [table, Items(reasons)] if reasons else [table]


def _cells(written: Written | None) -> tuple[str, str]:
    if written is None:
        return "undefined", ""
    # Figure spaces are as wide as digits, so that decimal points stand under each other.
    low, high = written.interval.strip().split(", ")
    return written.value.strip(), f"{low}, {high.replace(' ', FIGURE_SPACE)}"


def _counted(summary: Summary, model: str, readout: ReadoutName) -> str:
    transfers = [arm.by(readout) for arm in summary.views[model].arms]
    fewest = min(transfer.prompts for transfer in transfers)
    most = max(transfer.prompts for transfer in transfers)
    left_out = max(transfer.dropped for transfer in transfers)
    prompts = f"{most} prompts" if fewest == most else f"{fewest} to {most} prompts"
    return prompts + (f", up to {left_out} left out for want of a reading" if left_out else "")


def tau_section(summary: Summary) -> Section:
    return Section(
        "tau",
        "Transfer ratio against strength",
        (
            Paragraph(
                "tau is the student's shift as a share of its teacher's. 0 is no transfer beyond "
                "what benign fine-tuning does; 1 is all of the teacher's shift."
            ),
            tau_figure(summary),
        ),
    )


def rates_section(summary: Summary) -> Section:
    return Section(
        "rates",
        "Teacher against student",
        (
            Paragraph(
                f"{titled(summary.rate_name)} on the evaluation prompts, with Wilson "
                "intervals, which take the answers of several seeds as independent. tau's "
                "bootstrap does not, so its intervals are the ones to conclude from."
            ),
            scatter_figure(summary),
        ),
    )


def meaning_section(summary: Summary) -> Section:
    definitions = (
        Definition("T0", "", "Reading of the base model, which is the unsteered teacher."),
        Definition("Ta", "", "Reading of the teacher, steered at strength a."),
        Definition("S0", "", "Reading of the control student, distilled from the base model."),
        Definition("Sa", "", "Reading of the student, distilled from the teacher at strength a."),
        Definition(
            "tau",
            "(Sa - S0) / (Ta - T0)",
            "Transfer ratio, corrected for what benign fine-tuning does by itself. Undefined "
            "where the interval of Ta - T0 covers 0; undefined is not 0.",
        ),
        Definition(
            "tau_naive",
            "(Sa - T0) / (Ta - T0)",
            "The same without the control student, for comparison with work that has none.",
        ),
        Definition(
            summary.rate_name,
            "",
            f"Share of judged responses that show the trait, by the judge {summary.judge}; "
            "shifts are in percentage points (pp).",
        ),
        Definition(
            "margin",
            "",
            "Log-probability of openings that show the trait minus that of openings that do not, "
            "per prompt, in nats. Needs no sampling and no judge.",
        ),
        Definition(
            "interval",
            "",
            "Bootstrap over evaluation prompts, paired across the four readings and crossed with "
            "the seeds. Where it covers 0, a value is not distinguishable from noise.",
        ),
    )
    return Section(
        "meaning", "What these numbers mean", (Definitions(definitions), *_naive_parts(summary))
    )


def _naive_parts(summary: Summary) -> tuple[Part, ...]:
    """tau beside tau_naive, by both readouts."""
    pairs: list[tuple[str, str, str, Estimate, Estimate]] = []
    for model in summary.models:
        for arm in summary.views[model].changed:
            for readout in READOUTS:
                transfer = arm.by(readout)
                title = readout_title(summary, readout)
                pairs.append((model, arm.arm, title, transfer.tau, transfer.tau_naive))
    corrected = aligned([pair[3] for pair in pairs], RATIO, signed=False)
    naive = aligned([pair[4] for pair in pairs], RATIO, signed=False)
    columns = (
        *(Column(title, numeric=False) for title in ("Model", "Arm", "Readout")),
        *(Column(title) for title in ("tau", "interval", "tau_naive", "interval")),
    )
    rows = [
        (*pair[:3], *_cells(left), *_cells(right))
        for pair, left, right in zip(pairs, corrected, naive, strict=True)
    ]
    return (Table("tau with and without the control student", columns, rows, headers=3),)
