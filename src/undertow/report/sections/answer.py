"""The report's first screen: a sentence, verdict marks and the main picture; then its numbers."""

from collections import Counter

from undertow.analysis.contrasts import Standing
from undertow.analysis.lines import LineRecord
from undertow.analysis.summary import ModelView, Summary
from undertow.findings.arms import Finding, clause, clothed_findings, findings, sentence
from undertow.findings.audits import verdict_words
from undertow.findings.defences import Verdict, judged, told
from undertow.findings.engines import engine_sentences
from undertow.findings.lines import Push, difference_sentences, push
from undertow.findings.numbers import (
    RATIO,
    READOUTS,
    SCALES,
    arm_name,
    arm_strength,
    readout_title,
    shift_text,
    titled,
)
from undertow.report.charts.line import line_figure
from undertow.report.charts.tau import tau_figure
from undertow.report.page import (
    Card,
    Cards,
    Column,
    Items,
    Mark,
    MarkRow,
    Paragraph,
    Part,
    Section,
    Table,
)
from undertow.stats.dose import DoseVerdict
from undertow.stats.intervals import Estimate

RANDOM_MARKS: dict[Standing, Mark] = {
    "clear": Mark("clear of random", "yes"),
    "less": Mark("random went further", "no"),
    "apart": Mark("apart from random", "open"),
    "unclear": Mark("not clear of random", "no"),
    "unknown": Mark("no random draw to compare with", "open"),
}
DOSE_MARKS: dict[DoseVerdict, Mark] = {
    "threshold": Mark("threshold", "yes"),
    "continuous": Mark("continuous", "yes"),
    "none": Mark("no dependence on the strength", "no"),
    "undecided": Mark("undecided", "open"),
}

PUSH_MARKS: dict[Push, Mark] = {
    "another share": Mark("another share than of the trait", "open"),
    "any push": Mark("no other share than of the trait: any push comes across", "no"),
    "undecided": Mark("not told from the trait's share", "open"),
}

DEFENCE_MARKS: dict[Verdict, Mark] = {
    "removes transfer": Mark("removing transfer", "yes"),
    "removes transfer at an unknown cost": Mark("at an unknown cost", "open"),
    "removes transfer, and so does its placebo": Mark("as its placebo does", "no"),
    "removes transfer no better than training less": Mark("no better than training less", "no"),
    "amplifies": Mark("amplifying", "no"),
    "no effect shown": Mark("with no effect shown", "no"),
    "undecided": Mark("undecided", "open"),
}


def answer_section(summary: Summary) -> Section:
    """A card per model, and under them the transfer line of every model, side by side."""
    cards = Cards(tuple(_card(summary, view) for view in summary.views.values()))
    figure = line_figure(summary) or tau_figure(summary)
    return Section("answer", "The answer", (cards, figure), open=True)


def _card(summary: Summary, view: ModelView) -> Card:
    found = findings(summary, view.name)
    others = clothed_findings(summary, view.name)
    if not found and not others:
        return Card(view.name, "No trait arm was run, so there is nothing to say.", ())
    said = [f"At strength {found[0].arm.strength}, {_said(summary, found)}."] if found else []
    for arm in view.clothed:
        own = [each for each in others if each.arm == arm]
        said.append(f"{titled(arm_name(arm))}: {_said(summary, own)}.")
    text, found = " ".join(said), found or others[: len(READOUTS)]
    rows = [_row(summary, view, each) for each in found]
    dose = Mark("not fitted", "open") if view.dose is None else DOSE_MARKS[view.dose.verdict]
    rows += [MarkRow("Carrier", (_carrier(found[0]),)), MarkRow("Dose-response", (dose,))]
    line = view.lines.get("margin")
    if line is not None and (pushed := push(line)) is not None:
        said_of = f"tau {RATIO.written(line.random_slope)} by margin"
        rows.append(MarkRow("Random draws", (PUSH_MARKS[pushed],), said_of))
    defences = _defences(summary, view)
    rows += [defences] if defences else []
    return Card(view.name, text, tuple(rows))


def _said(summary: Summary, found: list[Finding]) -> str:
    """What each readout says; said once where all say the same."""
    titles = [readout_title(summary, each.readout) for each in found]
    clauses = [clause(each, title) for each, title in zip(found, titles, strict=True)]
    rest = {text.removeprefix(f"by {title}") for text, title in zip(clauses, titles, strict=True)}
    return f"by {' and by '.join(titles)}{rest.pop()}" if len(rest) == 1 else "; ".join(clauses)


def _row(summary: Summary, view: ModelView, finding: Finding) -> MarkRow:
    line = view.lines.get(finding.readout)
    if not finding.is_known:
        marks = [Mark("no reading", "open")]
    elif finding.is_clear_of_control:
        marks = [Mark("clear of control", "yes")]
        marks += [RANDOM_MARKS[finding.standing]] if finding.arm.direction else []
    else:
        marks = [Mark("not clear of control", "no")]
        # A shift that is noise beside the control student cannot stand clear of anything.
        beside = finding.arm.direction and finding.standing != "clear"
        marks += [RANDOM_MARKS[finding.standing]] if beside else []
    name = readout_title(summary, finding.readout)
    if line is None:
        return MarkRow(f"By {name}", tuple(marks), f"tau {RATIO.written(finding.transfer.tau)}")
    return MarkRow(f"By {name}", tuple(marks), f"pooled tau {RATIO.written(line.tau)}")


def _defences(summary: Summary, view: ModelView) -> MarkRow | None:
    """How many recipes of the largest strength have each verdict, by margin."""
    arms = told(summary, view.name)
    if not arms:
        return None
    found = Counter(judged(summary, arm, "margin").verdict for arm in arms)
    marks = [
        Mark(f"{found[verdict]} {words.text}", words.tone)
        for verdict, words in DEFENCE_MARKS.items()
        if found[verdict]
    ]
    said = arms[0].arm.replace("_", " ", 1)
    return MarkRow("Defences", tuple(marks), f"{said}, by margin") if marks else None


def _carrier(finding: Finding) -> Mark:
    """The audit of the largest strength; an arm of many rows without a leak is subliminal."""
    audit = finding.arm.audit
    if audit is None:
        return Mark("not audited", "open")
    if audit.passes:
        return Mark(verdict_words(audit), "yes")
    return Mark(verdict_words(audit), "no" if audit.leaks else "open")


def numbers_section(summary: Summary) -> Section:
    """What the first screen says, with all its numbers: a row per model and readout."""
    parts: list[Part] = []
    found = [each for model in summary.models for each in findings(summary, model)]
    if found:
        parts.append(_largest(summary, found))
    minds = tuple(
        f"{arm.model} {arm.arm}: mind that {reason}."
        for each in found
        for arm in (each.arm, each.random)
        if arm is not None
        for reason in (arm.degenerate, arm.diverged)
        if reason
    )
    minds += tuple(
        f"{model}: {text}" for model in summary.models for text in engine_sentences(summary, model)
    )
    parts += [Items(tuple(dict.fromkeys(minds)))] if minds else []
    clothed = tuple(
        f"{model}: {sentence(each, readout_title(summary, each.readout))}"
        for model in summary.models
        for each in clothed_findings(summary, model)
    )
    parts += [Paragraph("Teachers in other clothes:"), Items(clothed)] if clothed else []
    if summary.lines:
        parts += _pooled(summary)
    return Section("numbers", "The answer in numbers", tuple(parts), open=True)


VERDICTS: dict[Standing, str] = {
    "clear": "clear of both",
    "unclear": "clear of control, not of random",
    "less": "clear of control, random went further",
    "apart": "clear of control, apart from random",
    "unknown": "clear of control",
}


def _largest(summary: Summary, found: list[Finding]) -> Table:
    rows = []
    for each in found:
        difference = each.contrast.estimate if each.contrast else Estimate.unknown(None)
        rows.append(
            (
                each.arm.model,
                readout_title(summary, each.readout),
                VERDICTS[each.standing] if each.is_clear_of_control else "not clear of control",
                arm_strength(each.arm),
                shift_text(each.shift, each.readout),
                _random_shift(each),
                "" if difference.value is None else shift_text(difference, each.readout),
            )
        )
    words = ("At", "Student shift", "Random control's shift", "Difference")
    return Table(
        "At the largest strength: the student against the control student, and against the student "
        "of a random direction of the same strength",
        (
            *(Column(word, numeric=False) for word in ("Model", "Readout", "Verdict")),
            *(Column(word) for word in words),
        ),
        rows,
        headers=2,
    )


def _random_shift(finding: Finding) -> str:
    if finding.random is None:
        others = ", ".join(finding.random_strengths)
        return f"run at {others} only" if others else "not run"
    if finding.random_shift is None:
        return "no reading"
    return shift_text(finding.random_shift, finding.readout)


RANDOM_COLUMNS = ("Random draws' teachers", "Random draws' tau", "tau minus that")


def _pooled(summary: Summary) -> list[Part]:
    lines = [
        summary.views[model].lines[readout]
        for model in summary.models
        for readout in READOUTS
        if readout in summary.views[model].lines
    ]
    words = ("Model", "Readout", "Strengths", "Pooled tau", "One tau fits all, p")
    more = ("Student where the teacher rests", *RANDOM_COLUMNS)
    rows = [_pooled_row(summary, line) for line in lines]
    # What no model has is no column: a study of one random draw knows nothing of its spread.
    kept = [i for i in range(len(rows[0])) if i < 2 or any(row[i] for row in rows)]
    columns = [Column(word, numeric=i > 1) for i, word in enumerate((*words, *more))]
    table = Table(
        "All strengths together: the slope of the transfer line. A small p says that one tau does "
        "not fit all strengths",
        tuple(columns[i] for i in kept),
        [tuple(row[i] for i in kept) for row in rows],
        headers=2,
    )
    reasons = tuple(
        f"{line.model} by {readout_title(summary, line.readout)}: the pooled tau is undefined, "
        f"because {line.tau.reason}."
        for line in lines
        if line.tau.value is None
    )
    apart = tuple(difference_sentences(summary))
    parts: list[Part] = [table, Items(reasons)] if reasons else [table]
    return [*parts, Paragraph("Between models:"), Items(apart)] if apart else parts


def _pooled_row(summary: Summary, line: LineRecord) -> tuple[str, ...]:
    scale, null = SCALES[line.readout], line.random_teacher
    between = (
        f"{scale.number(null.low, signed=True)} to {scale.number(null.high, signed=True)} "
        f"{scale.unit} ({null.draws} draws)"
    )
    intercept = line.intercept
    return (
        line.model,
        readout_title(summary, line.readout),
        str(len(line.arms)),
        RATIO.written(line.tau),
        "" if line.fit_p is None else f"{line.fit_p:.2g}",
        "" if intercept.value is None else shift_text(intercept, line.readout),
        "" if null.low is None or null.high is None else between,
        "" if line.random_slope.value is None else RATIO.written(line.random_slope),
        ""
        if line.against_random.value is None
        else RATIO.written(line.against_random, signed=True),
    )
