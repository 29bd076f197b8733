"""`transformers serve` as the judge, through the real client."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import socket

import pytest

from tiny import save_tiny
from undertow.config import OpenAiJudgeSettings
from undertow.judging.base import JudgeRow, judge_all
from undertow.judging.openai.judge import OpenAiJudge
from undertow.judging.openai.rubrics import trait_rubric

pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
SECONDS_TO_START = 120


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Address and model name of a tiny random model behind `transformers serve`."""
    folder = save_tiny(tmp_path / "tiny", "smollm2")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.kill()
        process.wait()


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
