"""Write the answers in docs/results/README.md and README.md from the published summaries.

What stands between the marks of a page is made here and nowhere else, and so is the figure of
defences, docs/results/defences.svg; a test holds pages and figure to it. Each answer names the
file and the entry that it rests on. The figures, the table and metrics.json of every folder are
made again, too.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import fill

from undertow.analysis.headline import headline
from undertow.analysis.lines import LineRecord
from undertow.analysis.summary import ChainArm, DefenceArm, Summary
from undertow.findings import returns
from undertow.findings.defences import judged, told
from undertow.findings.lines import push
from undertow.findings.rounds import course_of
from undertow.report.charts.kept_out import Shown, kept_out
from undertow.report.publish import pictures
from undertow.report.terminal import strength_table
from undertow.stats.intervals import Estimate
from undertow.study.found import read_record
from undertow.texts.numbers import RATIO, Scale

ROOT = Path(__file__).resolve().parents[1]
SMOL, QWEN = "smollm2-135m-instruct", "qwen25-coder-05b-instruct"
SHORT = {SMOL: "SmolLM2-135M", QWEN: "Qwen2.5-Coder-0.5B"}
NATS, POINTS = Scale("nats", 1, 2), Scale("pp", 100, 0)
CONTROLS = 8  # students of the unsteered teacher, of each recipe
MATCHED = 1.05  # of the loss of plain's control: where SGD's ends above, it has learned less


class Answer:
    """A question of PLAN.md, what each model says, and where that stands."""

    def __init__(self, letter: str, question: str, said: dict[str, str], where: str) -> None:
        self.letter, self.question, self.said, self.where = letter, question, said, where


@cache
def study(name: str) -> Summary:
    """A published study."""
    return read_record(_place(name), Summary)


def _place(name: str) -> Path:
    return ROOT / "docs" / "results" / name / "summary.json"


@cache
def studies_of_defences() -> dict[str, str]:
    """By model the published folder that has recipes of it; `defences` where that is one."""
    found = {
        model: path.parent.name
        for path in sorted((ROOT / "docs" / "results").glob("defences*/summary.json"), reverse=True)
        for model in {each.model for each in study(path.parent.name).defences}
    }
    return {model: found[model] for model in SHORT if model in found}


@cache
def studies_of_corridors() -> dict[str, str]:
    """By model the published folder that has a corridor in it."""
    found = {
        model: name
        for name in ("corridor-qwen", "defences")
        if _place(name).exists()
        for model in {each.model for each in study(name).defences if each.student == "corridor"}
    }
    return {model: found[model] for model in SHORT if model in found}


@cache
def studies_at_one() -> dict[str, str]:
    """By model the published folder that has recipes of it at 1 and CONTROLS control students."""
    return {
        model: name
        for model, name in studies_of_defences().items()
        if _at_one(study(name), model) and _controls(study(name), model) >= CONTROLS
    }


def _at_one(summary: Summary, model: str) -> list[DefenceArm]:
    return [arm for arm in summary.defences if (arm.model, arm.arm) == (model, "trait_1")]


def _controls(summary: Summary, model: str) -> int:
    control = summary.views[model].control
    return len(control.cells) if control else 0


def answers() -> Iterator[Answer]:
    """(a) to (h), in the order of the plan."""
    main, filtered = study("main"), study("filtered")
    yield Answer(
        "a",
        "Does the trait come across, and how much of it? Pooled tau by margin; by share",
        {
            model: "{}: {}; {}".format(
                _sign(_line(main, model).tau),
                RATIO.written(_line(main, model).tau),
                _known(main.views[model].lines["rate"].tau),
            )
            for model in main.models
        },
        "main/summary.json, lines: tau",
    )
    yield Answer(
        "b",
        "Without visible traces? Pooled tau by margin where rows with phrases are out; arms that "
        "pass the audit and whose student's shift excludes 0",
        {model: _filtered(main, filtered, model) for model in filtered.models},
        "filtered/summary.json, lines: tau; arms: audit, bounds.margin.simultaneous.student_shift "
        "(and main, strengths)",
    )
    drawn_from = "draws" if _place("draws").exists() else "main"  # PLAN-2.md
    draws = study(drawn_from)
    yield Answer(
        "c",
        "The trait, or any push? Slope of the random draws; the trait's slope minus it",
        {
            model: f"{_push(draws, model)}: {_known(_line(draws, model).random_slope)}; "
            f"{_known(_line(draws, model).against_random)}"
            for model in draws.models
        },
        f"{drawn_from}/summary.json, lines: random_slope, against_random",
    )
    strengths = study("strengths")
    dose = strengths.views[SMOL].dose
    yield Answer(
        "d",
        "Threshold or continuous, at ten strengths? Judged share",
        {SMOL: str(dose.verdict) if dose else "undecided"},
        "strengths/summary.json, doses: verdict",
    )
    yield Answer(
        "e",
        "Another base on the same text, at 1.5? Its shift by margin; by share (the model is the "
        "teacher's)",
        {model: _other(main, model) for model in main.models},
        "main/summary.json, students: other_base, bounds.*.simultaneous.student_shift",
    )
    defences = {model: study(name) for model, name in studies_of_defences().items()}
    yield Answer(
        "f",
        "Which defences remove transfer, beyond placebo and lost learning? At 1.5, by margin",
        {model: _kept_out(found, model) for model, found in defences.items()},
        f"{'/, '.join(dict.fromkeys(studies_of_defences().values()))}/summary.json, defences: "
        "margin.removed",
    )
    at_one = studies_at_one()
    if at_one:
        yield Answer(
            "f, again",
            "At 1, with eight control students each?",
            {m: _verdicts(study(name), _at_one(study(name), m)) for m, name in at_one.items()},
            f"{'/, '.join(dict.fromkeys(at_one.values()))}/summary.json, defences: margin.removed",
        )
    asked = {m: _folders(m) for m in defences}
    back = {m: said for m, names in asked.items() if (said := _back(names, m))}
    if back:
        yield Answer(
            "f, back",
            "Does what was removed come back, with the training message on (message) or in twice "
            "the epochs (epochs)? At 1.5, by margin",
            back,
            f"{'/, '.join(dict.fromkeys(name for m in back for name in asked[m]))}/summary.json, "
            "defences: returns.back",
        )
    held = {m: _held(m, name) for m, name in studies_of_corridors().items()}
    if held:
        yield Answer(
            "f, corridor",
            "Does a corridor for the margin keep it out? At 1 and at 1.5, by margin: what it "
            "removes, minus its placebo, verdict",
            held,
            f"{'/, '.join(dict.fromkeys(studies_of_corridors().values()))}/summary.json, defences: "
            "margin.removed, margin.less_tau_than_placebo",
        )
    rounds = study("rounds")
    further = any(_is_continued(chain) for chain in rounds.rounds)
    yield Answer(
        "g",
        "Do three rounds amplify it, at 1.5? Step ratio by margin, 3 epochs; 9 epochs"
        + ("; 3 epochs of one adapter trained further" if further else ""),
        {model: _rounds(rounds, model) for model in rounds.models},
        "rounds/summary.json, rounds: margin_step",
    )
    refusal = study("refusal")
    yield Answer(
        "h",
        "Refusal at -1.5, by share: the student's shift; minus the random draws'",
        {QWEN: _refusal(refusal)},
        "refusal/summary.json, arms: bounds.rate.simultaneous.student_shift; contrasts",
    )


def _line(summary: Summary, model: str) -> LineRecord:
    return summary.views[model].lines["margin"]


def _known(value: Estimate, scale: Scale = RATIO) -> str:
    return scale.written(value) if value.value is not None else f"undefined ({value.reason})"


def _sign(tau: Estimate) -> str:
    if tau.value is None:
        return "undecided"
    low, high = tau.ends
    return "yes" if low > 0 else "no" if low > -0.1 and high < 0.1 else "undecided"


PUSHED = {
    "another share": "yes, the trait's slope differs",
    "any push": "no, any push",
    "undecided": "undecided",
}


def _push(summary: Summary, model: str) -> str:
    return PUSHED[push(_line(summary, model)) or "undecided"]


def _hidden(summary: Summary, model: str) -> list[str]:
    return [
        f"{arm.strength} ({NATS.written(arm.bounds['margin'].simultaneous.student_shift)})"
        for arm in summary.views[model].trait
        if arm.audit is not None
        and arm.audit.verdict == "subliminal"
        and arm.bounds["margin"].simultaneous.student_shift.excludes_zero
    ]


def _filtered(main: Summary, filtered: Summary, model: str) -> str:
    tau = _line(filtered, model).tau
    found = [
        f"{name} {', '.join(hidden)}"
        for name, summary in (
            ("filtered", filtered),
            ("main", main),
            ("strengths", study("strengths")),
        )
        if model in summary.models and (hidden := _hidden(summary, model))
    ]
    return f"{_sign(tau)}: {_known(tau)}; subliminal: {'; '.join(found) or 'none'}"


def _other(summary: Summary, model: str) -> str:
    arm = next(
        each
        for each in summary.students
        if (each.model, each.arm, each.student) == (model, "trait_1.5", "other_base")
    )
    margin = arm.bounds["margin"].simultaneous.student_shift
    rate = arm.bounds["rate"].simultaneous.student_shift
    word = "yes" if margin.excludes_zero else "undecided"
    return f"{word}: {NATS.written(margin)}; {POINTS.written(rate)}"


def _kept_out(summary: Summary, model: str) -> str:
    return _verdicts(summary, told(summary, model))


def _by_verdict(summary: Summary, arms: Sequence[DefenceArm]) -> dict[str, list[str]]:
    """What each defence removes, by the verdict on it; placebos left out, SGD by MATCHED."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        if arm.placebo_of or _is_longer(arm) or _is_further_off(arm, arms):
            continue
        shown = f"{arm.student} {_percent(arm.margin.removed[1])}"
        verdict = judged(summary, arm, "margin").verdict
        found.setdefault("not matched" if _learned_less(arm) else verdict, []).append(shown)
    return found


def _is_longer(arm: DefenceArm) -> bool:
    """Whether it is plain, or a defence that has a row of its own, with more epochs."""
    return arm.student == "twice" or any(each.condition == "epochs" for each in arm.returns)


def _off(arm: DefenceArm) -> float | None:
    """How far the control of an SGD recipe ended from plain's, as a factor; None elsewhere."""
    loss, plain = arm.loss_control, arm.loss_control_plain
    return loss / plain if arm.student.startswith("sgd_") and loss and plain else None


def _is_further_off(arm: DefenceArm, arms: Sequence[DefenceArm]) -> bool:
    """Of several rates of SGD that one counts whose control ended nearest to plain's."""
    offs = [abs(off - 1) for each in arms if (off := _off(each)) is not None]
    own = _off(arm)
    return own is not None and abs(own - 1) > min(offs)


def _learned_less(arm: DefenceArm) -> bool:
    return (_off(arm) or 1.0) > MATCHED


def _verdicts(summary: Summary, arms: Sequence[DefenceArm]) -> str:
    found = _by_verdict(summary, arms)
    order = (
        "removes transfer",
        "removes transfer at an unknown cost",
        "removes transfer, and so does its placebo",
        "removes transfer no better than training less",
    )
    named = [f"{verdict}: {', '.join(found[verdict])}" for verdict in order if verdict in found]
    rest = [
        f"{verdict}: {len(names)}"
        for verdict, names in sorted(found.items())
        if verdict not in order
    ]
    return "; ".join([*named, *rest])


def _folders(model: str) -> list[str]:
    """The published folders of the model's defences."""
    every = (studies_of_defences(), studies_of_corridors())
    return list(dict.fromkeys(by[model] for by in every if model in by))


def _back(names: Sequence[str], model: str) -> str:
    """What came back in the published folders of these names, by course."""
    found: dict[str, list[str]] = {}
    for arm in (arm for name in names for arm in told(study(name), model)):
        for each in arm.returns:
            if each.readout == "margin":
                shown = f"{arm.student} ({each.condition}) {_percent(each.back[1])}"
                found.setdefault(returns.course_of(each), []).append(shown)
    return "; ".join(f"{course}: {', '.join(names)}" for course, names in sorted(found.items()))


def _held(model: str, name: str) -> str:
    """What a corridor removes at each strength, and beyond its placebo."""
    summary = study(name)
    return "; ".join(
        f"{arm.strength}: {_percent(arm.margin.removed[1])}, "
        f"{_percent(arm.margin.less_tau_than_placebo[1])}, "
        f"{judged(summary, arm, 'margin').verdict}"
        for arm in summary.defences
        if (arm.model, arm.student) == (model, "corridor")
    )


def _percent(removed: Estimate) -> str:
    return Scale("%", 100, 0).written(removed)


def _is_continued(chain: ChainArm) -> bool:
    return chain.rounds[-1].continued


def _rounds(summary: Summary, model: str) -> str:
    """New adapters at 3 epochs and at 9, then one adapter trained further, where it was run."""
    known = {
        (chain.students[0], _is_continued(chain)): chain
        for chain in summary.rounds
        if (chain.model, chain.arm) == (model, "trait_1.5")
    }
    order = (("plain", False), ("long", False), ("plain", True))
    chains = [known[which] for which in order if which in known]
    return "; ".join(
        f"{course_of(chain, 'margin')}: {_known(chain.margin_step)}" for chain in chains
    )


def _refusal(summary: Summary) -> str:
    arm = next(arm for arm in summary.views[QWEN].arms if arm.arm == "trait_-1.5")
    shift = arm.bounds["rate"].simultaneous.student_shift
    against = summary.views[QWEN].contrasts["trait_-1.5", "rate", "random"]
    word = {True: "yes", False: "undecided"}[against.estimate.excludes_zero]
    return f"{word}: {POINTS.written(shift)}; {POINTS.written(against.estimate)}"


def table() -> str:
    """The answers as Markdown for docs/results/README.md."""
    lines = [f"| | question | {SHORT[SMOL]} | {SHORT[QWEN]} | rests on |", "|---|---|---|---|---|"]
    for each in answers():
        cells = (each.letter, each.question, *(each.said.get(m, "-") for m in SHORT), each.where)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short() -> str:
    """The first answers as Markdown for README.md."""
    head = ("", SHORT[SMOL], SHORT[QWEN], "rests on, in docs/results")
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|---|"]
    for each in answers():
        if each.letter in "abcfg":
            said = (each.said.get(model, "-") for model in SHORT)
            cells = (f"({each.letter}) {each.question}", *said, each.where)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure() -> str:
    """What every defence removes and what is still learned, of both models, as SVG."""
    return kept_out(
        {SHORT[model]: Shown(study(name), model) for model, name in studies_of_defences().items()}
    )


def sentence() -> str:
    """What the figure shows, by verdicts from intervals that hold at once."""
    said = "; ".join(
        _of_defences(study(name), model) for model, name in studies_of_defences().items()
    )
    at_one = studies_at_one()
    again = "; ".join(
        f"in {SHORT[model]} {', '.join(_removing(model, name)) or 'none'}"
        for model, name in at_one.items()
    )
    files = ", ".join(f"{name}/summary.json" for name in dict.fromkeys(at_one.values()))
    return fill(
        "By margin and at the largest strength, beside what learning less removes and beside the "
        f"[placebo](docs/defences.md) where there is one: {said} (row f)."
        + (
            " At strength 1, with eight control students a recipe, these remove it, more than "
            f"learning as little would: {again} ({files})."
            if at_one
            else ""
        ),
        width=118,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _removing(model: str, name: str) -> list[str]:
    return _by_verdict(study(name), _at_one(study(name), model)).get("removes transfer", [])


def _of_defences(summary: Summary, model: str) -> str:
    by_verdict = _by_verdict(summary, [arm for arm in told(summary, model) if not arm.draws_line])
    removed = by_verdict.get("removes transfer", [])
    unknown = by_verdict.get("removes transfer at an unknown cost", [])
    less = by_verdict.get("removes transfer no better than training less", [])
    alike = by_verdict.get("removes transfer, and so does its placebo", [])
    parts = []
    if removed:
        parts.append(f"{len(removed)} remove transfer ({', '.join(removed)})")
    if less:
        parts.append(f"{len(less)} remove it no better than training less")
    if alike:
        parts.append(f"{len(alike)} remove it, and so does their placebo")
    if unknown:
        cost = "remove it at a cost in learning that is not known"
        parts.append(f"{len(unknown)} {cost} ({', '.join(unknown)})")
    rest = f"none is shown to remove {'it otherwise' if parts else 'any of it'}"
    many = sum(map(len, by_verdict.values()))
    return f"of {many} defences in {SHORT[model]} " + ", ".join(
        parts if removed else [*parts, rest]
    )


def page(path: Path, parts: dict[str, str]) -> str:
    """The page with what stands between each name's marks replaced."""
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def pages() -> dict[Path, str]:
    """Pages and the figure of both models as they ought to be."""
    results, readme = ROOT / "docs" / "results" / "README.md", ROOT / "README.md"
    return {
        results: page(results, {"numbers": table()}),
        readme: page(readme, {"numbers": short(), "defences": sentence()}),
        results.parent / "defences.svg": figure(),
    }


def drawn() -> dict[Path, str]:
    """Every folder's figures, table and metrics.json as this version makes them of its numbers."""
    found: dict[Path, str] = {}
    for path in sorted((ROOT / "docs" / "results").glob("*/summary.json")):
        summary = study(path.parent.name)
        found |= {path.parent / name: text for name, text in pictures(summary).items()}
        if any(arm.audit for arm in summary.arms):  # refusal's table knows more than its summary
            found[path.parent / "table.txt"] = strength_table(summary) + "\n"
        found[path.parent / "metrics.json"] = json.dumps(headline(summary), indent=2) + "\n"
    return found


if __name__ == "__main__":
    for path, text in (pages() | drawn()).items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path.relative_to(ROOT), file=sys.stderr)
