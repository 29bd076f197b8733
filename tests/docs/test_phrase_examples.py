"""The examples of phrases in docs/judging.md come to the sums and verdicts beside them."""

import re
from typing import NamedTuple

import pytest
import yaml

from repository import ROOT
from undertow.texts.phrases import PhraseMatcher, PhraseRules

EXAMPLE = re.compile(r"```yaml\n(judge:\n.*?)```\n\n((?:\|[^\n]*\n)+)", re.DOTALL)
SECTION = re.compile(r"^## Phrases.*?(?=^## )", re.DOTALL | re.MULTILINE)


class Row(NamedTuple):
    rules: str
    answer: str
    score: float
    verdict: str


def rows() -> list[Row]:
    [section] = SECTION.findall((ROOT / "docs" / "judging.md").read_text(encoding="utf-8"))
    found = []
    for rules, table in EXAMPLE.findall(section):
        for line in table.splitlines()[2:]:
            answer, score, verdict = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Row(rules, answer, float(score), verdict))
    return found


def test_there_are_three_examples():
    assert len({row.rules for row in rows()}) == 3 and len(rows()) > 9


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.answer)
def test_an_answer_comes_to_its_sum_and_verdict(row: Row):
    rules = PhraseRules.model_validate(yaml.safe_load(row.rules)["judge"])
    weighed = PhraseMatcher(rules).weigh("", row.answer)
    assert weighed is not None
    assert weighed.score == row.score
    assert weighed.shows_trait == {"yes": True, "no": False}[re.split(r"\W", row.verdict)[0]]
