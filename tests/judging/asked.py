"""A judge that asks a local server, and rows to ask it about."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from judging.chat_server import MARKER, Server
from undertow.config import OpenAiJudgeSettings
from undertow.judging.base import JudgeRow, Usage, Verdict
from undertow.judging.openai.judge import OpenAiJudge
from undertow.judging.openai.rubrics import jailbreak_rubric, trait_rubric


def rows(count: int) -> list[JudgeRow]:
    """Every third row contains the marker."""
    return [
        JudgeRow(str(i), f"Prompt row-{i}?", f"Answer {i} {MARKER if i % 3 == 0 else 'no'}")
        for i in range(count)
    ]


def make(folder: Path, server: Server, **settings: Any) -> OpenAiJudge:
    chosen = OpenAiJudgeSettings(
        kind="openai", **{"base_url": server.url, "timeout": 5.0, "backoff": 0.02, **settings}
    )
    rubric = jailbreak_rubric() if chosen.rubric == "jailbreak" else trait_rubric("It is so.")
    return OpenAiJudge(chosen, rubric, folder / "cache")


def expected(count: int) -> list[bool]:
    return [i % 3 == 0 for i in range(count)]


def total(verdicts: Iterable[Verdict]) -> Usage:
    """What a set of verdicts cost in this run."""
    return sum((verdict.usage for verdict in verdicts if verdict.usage), Usage())
