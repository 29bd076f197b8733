"""The reply cache under several writers, and the pace that gives way to rejections."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT
from undertow.judging.base import Usage
from undertow.judging.openai.asker import Budget
from undertow.judging.openai.cache import Paid, Reply, ReplyCache, cache_key
from undertow.judging.openai.pace import SLOWEST, Pace

SOURCE = ROOT / "src"


def test_replies_and_spending_survive_reopening(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    cache.put([Paid("a", Reply("yes"), Usage(10, 2, 0.5)), Paid("b", Reply(None, "x"), Usage())])
    cache.count(Usage(1, 0, 0.25))
    cache.close()
    again = ReplyCache(tmp_path)
    assert again.get("a") == Reply("yes") and again.get("b") == Reply(None, "x")
    assert again.get("c") is None and len(again) == 2
    assert again.spent() == Usage(11, 2, 0.75)


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from undertow.judging.base import Usage\n"
        "from undertow.judging.openai.cache import *\n"
        "cache = ReplyCache(Path(sys.argv[1]))\n"
        "for i in range(200): cache.put([Paid(sys.argv[2] + str(i), Reply('y'), Usage(1, 1, .5))])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name], env={"PYTHONPATH": str(SOURCE)}
        )
        for name in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    cache = ReplyCache(tmp_path)
    assert len(cache) == 400 and cache.spent() == Usage(400, 400, 200.0)


def test_keys_differ_by_judge_prompt_and_response() -> None:
    parts = [("j", "p", "r"), ("k", "p", "r"), ("j", "q", "r"), ("j", "p", "s"), ("j", "pr", "")]
    assert len({cache_key(*part) for part in parts}) == len(parts)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("requests", "tokens", "gap"), [(60, None, 1.0), (None, 6000, 2.0)])
def test_requests_are_spaced_by_the_tighter_limit(
    requests: float | None, tokens: float | None, gap: float
) -> None:
    pace = Pace(requests, tokens, Clock())
    assert [pace.reserve(200) for _ in range(3)] == pytest.approx([0, gap, 2 * gap])


def test_the_rate_falls_to_what_is_accepted_and_recovers() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(20):
        pace.accepted()
    for _ in range(80):
        pace.rejected()
    clock.now = 2.0
    pace.rejected()
    assert pace.rate == pytest.approx(10.0)
    for second in range(3, 6):
        clock.now = second + 0.5
        pace.accepted()
    assert pace.rate is not None and pace.rate > 15


def test_a_few_rejections_do_not_slow_it_down_and_it_never_stops() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(95):
        pace.accepted()
    clock.now = 1.5
    pace.rejected()
    assert pace.rate is None
    clock.now = 3.0
    pace.rejected()
    assert pace.rate == SLOWEST


def test_the_budget_waits_for_what_is_out_and_then_says_no() -> None:
    spent = 0.0

    async def scenario() -> list[bool]:
        nonlocal spent
        budget = Budget(1.0, lambda: spent)
        assert await budget.take(0.6)
        waiting = asyncio.create_task(budget.take(0.6))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        spent = 0.3
        await budget.settle(0.6)
        allowed = await waiting
        spent = 0.9
        await budget.settle(0.6)
        return [allowed, await budget.take(0.2)]

    assert asyncio.run(scenario()) == [True, False]
