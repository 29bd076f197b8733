"""The report on defences: what each recipe removes, and what its students fail to learn for it."""

from collections.abc import Iterator, Sequence

from undertow.analysis.side_effects import EffectsSummary
from undertow.analysis.summary import DefenceArm, Summary
from undertow.findings.defences import defence_sentences, judged, student_of
from undertow.findings.numbers import (
    PERCENT,
    RATIO,
    READOUTS,
    SCALES,
    UNIT_NAMES,
    Scale,
    readout_title,
)
from undertow.report.charts.mechanism import ranged
from undertow.report.charts.worth import worth_figure
from undertow.report.page import Column, Heading, Items, Paragraph, Part, Section, Table
from undertow.report.sections.returns import return_parts
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName

COUNT = Scale("", 1, 0)
GAIN = Scale("", 1, 3)
EXPLAINED = (
    "Each recipe's students beside the plain ones of the same teachers, paired by seed and prompt; "
    "the control student gets the same defence. Removed is 1 - tau / plain's tau. Learned is what "
    "the students gain over the base on held-back benign answers of their teacher, as a share of "
    "what plain students gain. Recipes that merely learn less draw the line that a defence has to "
    "beat: beyond the line is what a defence removes and they, having gained as much, do not. "
    "A placebo changes as much and knows nothing of the trait. Verdicts rest on intervals that "
    "hold for all recipes and strengths of a model at once; the tables show pointwise ones."
)


def defence_sections(summary: Summary) -> tuple[Section, ...]:
    """The section, or nothing where only plain students were trained."""
    if not summary.defences and not summary.no_students:
        return ()
    parts: list[Part] = [Paragraph(EXPLAINED)]
    figure = worth_figure(summary)
    parts += [figure] if figure else []
    for model in summary.models:
        arms = [arm for arm in summary.defences if arm.model == model]
        if not arms:
            continue
        parts += [Heading(model), Items(tuple(defence_sentences(summary, model)))]
        for arm in dict.fromkeys(each.arm for each in arms):
            at = ordered([each for each in arms if each.arm == arm])
            parts += [_worth(summary, f"{model} {arm}", at, readout) for readout in READOUTS]
            parts.append(_costs(summary, f"{model} {arm}", at))
        parts += return_parts(summary, model, arms)
        reasons = tuple(_reasons(arms))
        parts += [Items(reasons)] if reasons else []
    missing = tuple(f"{name}: {why}." for name, why in summary.no_students.items())
    parts += [Items(missing)] if missing else []
    return (Section("defences", "Defences", tuple(parts)),)


def ordered(arms: Sequence[DefenceArm]) -> list[DefenceArm]:
    """Every placebo behind its defence."""
    names = [arm.student for arm in arms]

    def place(arm: DefenceArm) -> tuple[int, bool]:
        of = arm.placebo_of if arm.placebo_of in names else arm.student
        return names.index(of or arm.student), arm.student != of

    return sorted(arms, key=place)


def _worth(summary: Summary, title: str, arms: Sequence[DefenceArm], readout: ReadoutName) -> Table:
    scale = SCALES[readout]
    rows = []
    for arm in arms:
        worth = arm.by(readout)
        verdict = judged(summary, arm, readout)
        rows.append(
            (
                arm.student,
                RATIO.written(student_of(summary, arm).by(readout).tau),
                _text(worth.less_shift[0], scale, signed=True),
                _text(worth.less_tau[0], RATIO, signed=True),
                _text(worth.less_tau_than_placebo[0], RATIO, signed=True)
                if arm.placebo
                else "none",
                _text(worth.removed[0], PERCENT),
                _text(arm.learned, PERCENT),
                _text(worth.beyond_line[0], PERCENT, signed=True),
                verdict.verdict,
                verdict.why,
            )
        )
    return Table(
        f"{title} by {readout_title(summary, readout)} ({UNIT_NAMES[readout]})",
        (
            Column("Recipe", numeric=False),
            Column("tau"),
            Column(f"Plain's shift minus its, {scale.unit}"),
            Column("Plain's tau minus its"),
            Column("Placebo's tau minus its"),
            Column("Removed, %"),
            Column("Learned, %"),
            Column("Beyond the line, %"),
            Column("Verdict", numeric=False),
            Column("Because", numeric=False),
        ),
        rows,
    )


def _costs(summary: Summary, title: str, arms: Sequence[DefenceArm]) -> Table:
    plain = next(a for a in summary.arms if (a.model, a.arm) == (arms[0].model, arms[0].arm))
    seconds, tokens = _plain_costs(summary, arms[0])
    loss = _loss(arms[0].loss_control_plain)
    effects = _effects(plain.student_effects)
    rows = [("plain", "100.0", "0", "100.0", loss, *effects, seconds, tokens, "")]
    rows += [
        (
            arm.student,
            _text(arm.learned, PERCENT),
            _text(arm.gain_less, GAIN, signed=True) if arm.gain_less else "unknown",
            _text(arm.learned_control, PERCENT),
            _loss(arm.loss_control),
            *_effects(student_of(summary, arm).student_effects),
            COUNT.number(arm.seconds),
            COUNT.number(arm.tokens_trained),
            ranged(arm.residue) if arm.residue else "unknown",
        )
        for arm in arms
    ]
    return Table(
        f"{title}: what it costs, and how far students still lie along the direction",
        (
            Column("Recipe", numeric=False),
            Column("Learned, %"),
            Column("Plain's gain minus its, nats a token"),
            Column("Its control, %"),
            Column("Its control's loss, nats"),
            Column("Perplexity"),
            Column("Tokens"),
            Column("Repeated 4-grams, %"),
            Column("Refusals, %"),
            Column("Seconds a student"),
            Column("Tokens trained"),
            Column("Projection"),
        ),
        rows,
    )


def _plain_costs(summary: Summary, arm: DefenceArm) -> tuple[str, str]:
    start = f"{arm.model}/{arm.arm}/seed"
    found = [
        stages["distill"]
        for key, stages in summary.costs.items()
        if key.startswith(start) and key.count("/") == 2 and "distill" in stages
    ]
    if not found:
        return "unknown", "unknown"
    totals = (sum(c.seconds for c in found), float(sum(c.tokens_trained for c in found)))
    seconds, tokens = (COUNT.number(total / len(found)) for total in totals)
    return seconds, tokens


def _effects(effects: EffectsSummary | None) -> tuple[str, ...]:
    if effects is None:
        return ("unknown",) * 4
    return (
        RATIO._replace(absent="unknown").number(effects.perplexity.value),
        COUNT.number(effects.tokens.value),
        PERCENT.number(effects.repetition.value),
        PERCENT.number(effects.refusals.value),
    )


def _loss(value: float | None) -> str:
    return RATIO._replace(absent="unknown").number(value)


def _text(estimate: Estimate, scale: Scale, *, signed: bool = False) -> str:
    bare = scale._replace(unit="", absent="unknown")
    return bare.written(estimate, signed=signed)


def _reasons(arms: Sequence[DefenceArm]) -> Iterator[str]:
    """Why a number of the tables is unknown, each reason once with all whom it concerns."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        named = {"learned": arm.learned, "its control's learning": arm.learned_control}
        for readout in READOUTS:
            named[f"removed by {readout}"] = arm.by(readout).removed[0]
            named[f"placebo's tau by {readout}"] = arm.by(readout).less_tau_than_placebo[0]
        for what, estimate in named.items():
            if estimate.reason and (arm.placebo or "placebo" not in what):
                found.setdefault(f"{what} is unknown: {estimate.reason}", []).append(
                    f"{arm.student} {arm.arm}"
                )
    for reason, whom in found.items():
        yield f"{', '.join(whom)}: {reason}."
