"""What is found in a trait, one line a thing."""

from collections.abc import Sequence
from typing import Literal

from undertow.study.records import Record
from undertow.texts.tables import wrapped

State = Literal["ok", "weak", "wrong", "unknown"]


class TraitFinding(Record):
    """wrong stops a study or spoils it, weak makes it say less; `remedy` says what to change."""

    name: str
    state: State
    found: str
    remedy: str | None = None


def judged(
    name: str,
    found: str,
    remedy: str,
    *,
    wrong: bool = False,
    weak: bool = False,
    few: str | None = None,
) -> TraitFinding:
    """A finding whose remedy is said only where one is needed.

    few: what to write where there is too little to judge by; then nothing is ok.
    """
    state: State = "wrong" if wrong else "weak" if weak or few else "ok"
    remedy = few or remedy
    return TraitFinding(
        name=name, state=state, found=found, remedy=None if state == "ok" else remedy
    )


def findings_text(findings: Sequence[TraitFinding]) -> str:
    """For people: a line a finding, its remedy under it, and a count of what is not right."""
    width = max(len(each.name) for each in findings)
    margin = len("unknown") + 2 + width + 2
    lines = []
    for each in findings:
        lines += wrapped(f"{each.state:7}  {each.name:{width}}  {each.found}", hang=margin)
        if each.remedy:
            lines += wrapped(f"-> {each.remedy}", indent=margin, hang=3)
    counts = {state: sum(each.state == state for each in findings) for state in ("wrong", "weak")}
    lines.append(f"{counts['wrong']} wrong, {counts['weak']} weak")
    if not counts["wrong"]:
        less = "; with what is weak it says less" if counts["weak"] else ""
        lines.append(f"A study may be run: name it under trait in params.yaml{less}.")
    return "\n".join(lines)
