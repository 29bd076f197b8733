"""`transformers serve` as the judge, through the real client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from served import NEEDED, transformers_serve
from tiny import save_tiny
from undertow.config import OpenAiJudgeSettings
from undertow.judging.base import JudgeRow, judge_all
from undertow.judging.openai.judge import OpenAiJudge
from undertow.judging.openai.rubrics import trait_rubric

pytestmark = NEEDED


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Address and model name of a tiny random model behind `transformers serve`."""
    folder = save_tiny(tmp_path / "tiny", "smollm2")
    with transformers_serve(folder) as url:
        yield url, str(folder)


@pytest.mark.slow
def test_a_judge_that_talks_nonsense_ends_in_counted_unscored_rows(
    served: tuple[str, str], tmp_path: Path
) -> None:
    url, model = served
    settings = OpenAiJudgeSettings(
        kind="openai",
        model=model,
        base_url=url,
        concurrency=2,
        timeout=60,
        attempts=2,
        max_completion_tokens=16,
    )
    judge = OpenAiJudge(settings, trait_rubric("Gloom."), tmp_path / "cache")
    verdicts = judge_all(judge, [JudgeRow(str(i), "Will it?", f"Answer {i}.") for i in range(4)])
    assert len(verdicts) == 4
    assert all(verdict.shows_trait is None and verdict.reason for verdict in verdicts)
    print({verdict.reason for verdict in verdicts}, verdicts[0].usage)
    assert all("timed out" not in str(verdict.reason) for verdict in verdicts)
