"""The report on rounds in which students become teachers."""

from undertow.analysis.summary import Summary
from undertow.findings.numbers import RATIO, READOUTS, SCALES, readout_title
from undertow.findings.rounds import course_of, round_sentences
from undertow.report.charts.mechanism import ranged
from undertow.report.charts.rounds import rounds_figure
from undertow.report.page import Column, Heading, Items, Paragraph, Part, Section, Table

EXPLAINED = (
    "The student of a round, unsteered, answers the same benign prompts, and the next student "
    "learns from those answers: a new adapter on the base or, where a round is continued, the "
    "adapter of the student that wrote them, trained further. The control lineage and random ones "
    "go as deep; shifts are from the control lineage at the same round, tau is over the first "
    "teacher's shift. The step ratio is one round's shift over that of the round before, paired by "
    "lineage and prompt; the verdict rests on its geometric mean over all steps."
)


def round_sections(summary: Summary) -> tuple[Section, ...]:
    """The section, or nothing where the grid has no later rounds."""
    if not summary.rounds:
        return ()
    parts: list[Part] = [Paragraph(EXPLAINED)]
    figure = rounds_figure(summary)
    parts += [figure] if figure else []
    for model in summary.models:
        own = [chain for chain in summary.rounds if chain.model == model]
        if not own:
            continue
        parts += [Heading(model), Items(tuple(round_sentences(summary, model)))]
        for readout in READOUTS:
            bare = SCALES[readout].bare
            rows = [
                (
                    each.student,
                    str(each.round),
                    "trained further" if each.continued else "new",
                    chain.arm,
                    bare.written(each.by(readout).shift, signed=True),
                    RATIO.written(each.by(readout).tau),
                    RATIO.written(each.by(readout).step),
                    ranged(each.projection) if each.projection else "unknown",
                    course_of(chain, readout) if each.round == len(chain.rounds) else "",
                )
                for chain in own
                for each in chain.rounds
            ]
            columns = (
                Column("Student", numeric=False),
                Column("Round"),
                Column("Adapter", numeric=False),
                Column("Arm", numeric=False),
                Column(f"Shift, {SCALES[readout].unit}"),
                Column("tau"),
                Column("Step ratio"),
                Column("Projection"),
                Column("Course", numeric=False),
            )
            parts.append(
                Table(f"{model}: rounds by {readout_title(summary, readout)}", columns, rows)
            )
    return (Section("rounds", "Rounds: students as teachers", tuple(parts)),)
