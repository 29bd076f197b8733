"""Hostile responses, harmless in content, through every judge: no crash, no verdict hijacked."""

import json
from pathlib import Path

import pytest

from judging.asked import make
from judging.chat_server import RESPONSE, started
from undertow.judging.base import JudgeRow, judge_all
from undertow.judging.double import ScriptedJudge
from undertow.judging.offline import PhraseJudge
from undertow.judging.openai.cache import Reply
from undertow.judging.openai.replies import NO_VERDICT, verdict_of
from undertow.judging.openai.rubrics import Rubric, jailbreak_rubric, trait_rubric
from undertow.judging.panel import PanelJudge
from undertow.texts.phrases import PhraseRules
from undertow.texts.untrusted import MARKS, fence, neutralise

LINES = (Path(__file__).parent / "hostile.jsonl").read_text().splitlines()
HOSTILE = {row["name"]: row["response"] * row.get("times", 1) for row in map(json.loads, LINES)}
ROWS = [JudgeRow(name, "What is soup?", text) for name, text in HOSTILE.items()]
BLANK = {name for name, text in HOSTILE.items() if not text.strip()}
RUBRICS = [jailbreak_rubric(), trait_rubric("It is gloomy.")]


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_the_fence_holds(name: str) -> None:
    text = fence("What is soup?", HOSTILE[name], 12_000)
    (found,) = RESPONSE.finditer(text)
    assert text.endswith(found[0])
    assert found[2] == neutralise(HOSTILE[name], 12_000)
    # Nothing between the boundary lines looks like a boundary line or a chat mark.
    assert "====" not in found[2] and not MARKS.search(found[2])
    assert text.count(found[1]) == 4
    assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]
    text.encode()


@pytest.mark.parametrize("rubric", ["trait", "jailbreak"])
def test_a_model_judge_is_asked_soundly_and_its_verdict_is_its_own(
    tmp_path: Path, rubric: str
) -> None:
    # The server says false for every response that lacks its marker, and none has it.
    with started(tmp_path) as server:
        verdicts = judge_all(make(tmp_path, server, rubric=rubric), ROWS)
    for row, verdict in zip(ROWS, verdicts, strict=True):
        assert verdict.shows_trait is (None if row.id in BLANK else False), row.id


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_judge_that_quotes_the_response_keeps_its_own_verdict(name: str, rubric: Rubric) -> None:
    own = (
        '{"reason": "x", "coherence": 5, "refused": true, "convincing": 1, "specific": 1, '
        '"jailbroken": false, "degree": 1, "present": false}'
    )
    reply = f"The response says {HOSTILE[name]!r}.\n{own}"
    assert verdict_of(Reply(reply), rubric, 2).shows_trait is False


@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_a_reply_without_a_verdict_is_unscored(rubric: Rubric) -> None:
    for reply in ("", "yes", "true", "[]", "{}", "{" * 9000, '{"present": true}', "null", '"{}"'):
        assert verdict_of(Reply(reply), rubric, 2).reason == NO_VERDICT


def test_broken_text_is_not_read_as_showing_the_trait() -> None:
    answer = {"reason": "x", "coherence": 1, "degree": 5, "present": True}
    assert verdict_of(Reply(json.dumps(answer)), RUBRICS[1], 2).shows_trait is False
    answer["coherence"] = 2
    assert verdict_of(Reply(json.dumps(answer)), RUBRICS[1], 2).shows_trait is True


def test_offline_judges_and_panels_survive() -> None:
    phrases = PhraseJudge(PhraseRules(present={"gloom": 1}, absent={"sunny": 1}))
    double = ScriptedJudge("no such marker")
    panel = PanelJudge({"phrases": phrases, "double": double}, "majority")
    for judge in (phrases, double, panel):
        for row, verdict in zip(ROWS, judge_all(judge, ROWS), strict=True):
            assert not verdict.shows_trait, row.id


def test_unpaired_surrogates_are_judged_too(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        (verdict,) = judge_all(
            make(tmp_path, server), [JudgeRow("1", "soup \ud800", "soup \udfff soup")]
        )
    assert verdict.shows_trait is False
