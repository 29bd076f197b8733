"""The judge behind the Chat Completions API, through the real client, against a local server."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from judging.asked import expected, make, rows, total
from judging.chat_server import Server, started
from undertow.errors import ConfigError, UndertowError
from undertow.judging.base import Verdict, judge_all
from undertow.judging.openai.replies import NO_VERDICT


@pytest.mark.parametrize("rubric", ["trait", "jailbreak"])
def test_rows_are_judged_in_order_with_scores_and_costs(tmp_path: Path, rubric: str) -> None:
    with started(tmp_path) as server:
        price = {"input": 2.0, "output": 8.0}
        judge = make(tmp_path, server, rubric=rubric, price=price)
        verdicts = judge_all(judge, rows(20))
        body = server.bodies()[0]
    assert [verdict.shows_trait for verdict in verdicts] == expected(20)
    assert {verdict.score for verdict in verdicts} == (
        {0.0, 1.0} if rubric == "trait" else {0, 0.75}
    )
    spent = total(verdicts)
    assert spent.completion_tokens == 20 * 60 and spent.prompt_tokens > 20 * 200
    assert spent.usd == pytest.approx((spent.prompt_tokens * 2 + spent.completion_tokens * 8) / 1e6)
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["temperature"] == 0 and body["model"] == "gpt-4.1-2025-04-14"


def test_a_row_is_paid_for_once_whatever_cell_asks(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        judge_all(make(tmp_path, server), [*rows(10), *rows(10)])
        again = judge_all(make(tmp_path, server), rows(10))
        assert len(server.requests()) == 10
    assert [verdict.shows_trait for verdict in again] == expected(10)
    assert not total(again).prompt_tokens


def test_the_key_holds_what_changes_a_verdict_and_nothing_else(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        same = [
            {"concurrency": 3, "timeout": 9.0, "attempts": 2, "max_usd": 1.0, "mode": "batch"},
            {"requests_per_minute": 60.0, "price": {"input": 1, "output": 1}},
        ]
        other: list[dict[str, Any]] = [
            {"model": "gpt-4o"},
            {"temperature": 0.5},
            {"max_characters": 100},
            {"rubric": "jailbreak"},
            {"min_coherence": 3},
        ]
        plain = make(tmp_path, server).fingerprint
        assert {make(tmp_path, server, **change).fingerprint for change in same} == {plain}
        changed = {make(tmp_path, server, **change).fingerprint for change in other}
    assert len(changed) == len(other) and plain not in changed


def test_an_endpoint_without_schemas_is_asked_for_json_in_text(tmp_path: Path) -> None:
    with started(tmp_path, schema="no") as server:
        verdicts = judge_all(make(tmp_path, server, concurrency=1), rows(5))
        bodies = server.bodies()
    assert [verdict.shows_trait for verdict in verdicts] == expected(5)
    assert ["response_format" in body for body in bodies] == [True] + [False] * 5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("garbage", NO_VERDICT),
        ("empty", "judge: empty reply"),
        ("refusal", "judge: refused to judge"),
        ("length", "judge: reply cut off"),
        ("429", "judge: rate limit"),
        ("500", "judge: server error"),
        ("broken", "judge: not a chat completion"),
        ("hang", "judge: timed out"),
    ],
)
def test_a_judgement_that_cannot_be_had_is_null_with_its_reason(
    tmp_path: Path, fault: str, reason: str
) -> None:
    with started(tmp_path, faults={fault: 1.0}) as server:
        judge = make(tmp_path, server, timeout=0.5, attempts=2)
        (verdict,) = judge_all(judge, rows(1))
        asked = len(server.requests())
        assert (verdict.shows_trait, verdict.reason) == (None, reason)
        # An answer without a verdict is not asked for again at once, but by a later run.
        answered = fault in ("garbage", "empty", "refusal", "length")
        assert verdict.transient
        assert asked == (1 if answered else 2)
        judge_all(judge, rows(1))
        assert len(server.requests()) == 2 * asked


def test_raw_replies_are_kept(tmp_path: Path) -> None:
    with started(tmp_path, faults={"garbage": 1.0}) as server:
        (verdict,) = judge_all(make(tmp_path, server), rows(1))
    assert verdict.raw == "maybe, who can say"


@pytest.mark.parametrize("fault", ["quota"])
def test_an_account_without_credit_stops_the_run_with_a_remedy(tmp_path: Path, fault: str) -> None:
    with started(tmp_path, faults={fault: 1.0}) as server:
        with pytest.raises(UndertowError, match=r"insufficient_quota.*\n.*add credit"):
            judge_all(make(tmp_path, server, concurrency=2), rows(20))
        assert len(server.requests()) <= 2


def test_the_budget_is_never_passed_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    price = {"input": 100.0, "output": 100.0}
    with started(tmp_path, latency=0.02) as server:
        done = []
        limited = make(tmp_path, server, price=price, max_usd=1.5, concurrency=16)
        with pytest.raises(UndertowError, match=r"max_usd = 1\.5.*\n.*raise"):
            for position, verdict in limited.stream(rows(200)):
                done.append((position, verdict))
        spent = total(verdict for _, verdict in done).usd
        assert spent is not None and 0.5 < spent <= 1.5
        asked = len(server.requests())
        assert asked == len(done)
        judge_all(make(tmp_path, server, price=price, max_usd=100.0), rows(200))
        assert len(server.requests()) == 200


def test_a_budget_without_a_price_is_a_configuration_error(tmp_path: Path) -> None:
    with started(tmp_path) as server, pytest.raises(ConfigError, match=r"judging\.judge\.price"):
        judge_all(make(tmp_path, server, max_usd=1.0), rows(1))


def test_a_closed_stream_leaves_no_thread_behind(tmp_path: Path) -> None:
    import threading

    with started(tmp_path, latency=0.1) as server:
        stream = make(tmp_path, server, concurrency=4).stream(rows(100))
        next(stream)
        stream.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "judge"]
        assert len(server.requests()) < 20


def check_faulty_run(server: Server, verdicts: list[Verdict], count: int) -> None:
    """Every row ends scored, or null with the right reason, and none is answered twice."""
    answered = Counter(
        request.row
        for request in server.requests()
        if request.fault in ("", "garbage") and request.replied is not None
    )
    garbage = {request.row for request in server.requests() if request.fault == "garbage"}
    assert len(verdicts) == count
    for i, verdict in enumerate(verdicts):
        if f"row-{i}" in garbage:
            assert (verdict.shows_trait, verdict.reason) == (None, NO_VERDICT)
        else:
            assert verdict.shows_trait is (i % 3 == 0), verdict
        assert answered[f"row-{i}"] == 1


FAULTS = {"429": 0.05, "500": 0.02, "hang": 0.01, "garbage": 0.005, "broken": 0.005}


def test_faults_are_survived(tmp_path: Path) -> None:
    with started(tmp_path, latency=0.01, faults=FAULTS) as server:
        judge = make(tmp_path, server, concurrency=32, timeout=1.0)
        check_faulty_run(server, judge_all(judge, rows(300)), 300)


@pytest.mark.slow
def test_two_thousand_rows_with_faults(tmp_path: Path) -> None:
    with started(tmp_path, latency=0.2, faults=FAULTS) as server:
        judge = make(tmp_path, server, concurrency=64, timeout=3.0, backoff=0.2)
        began = time.monotonic()
        verdicts = judge_all(judge, rows(2000))
        print(f"2,000 rows with faults: {time.monotonic() - began:.1f} s")
        print(Counter(verdict.reason for verdict in verdicts), len(server.requests()), "requests")
        check_faulty_run(server, verdicts, 2000)


class Throughput(NamedTuple):
    """Shares of the ideal throughput, which is concurrency / latency.

    undisturbed: without the time that one thread here or in the server, the longest, was ready to
    run while other work had the cores.
    """

    share: float
    undisturbed: float


def throughput(folder: Path, count: int, concurrency: int) -> Throughput:
    latency = 0.2
    with started(folder, latency=latency) as server:
        judge = make(folder, server, concurrency=concurrency, timeout=30.0)
        with waiting(os.getpid()) as ours, waiting(server.process.pid) as its:
            began = time.monotonic()
            verdicts = judge_all(judge, rows(count))
            elapsed = time.monotonic() - began
        waited = max(*ours.values(), *its.values())
    assert [verdict.shows_trait for verdict in verdicts] == expected(count)
    print(
        f"{count} rows at concurrency {concurrency}: {elapsed:.2f} s, "
        f"{waited:.2f} s of them without a core"
    )
    ideal = count / concurrency * latency
    return Throughput(ideal / elapsed, ideal / (elapsed - waited))


@contextmanager
def waiting(pid: int) -> Iterator[dict[str, float]]:
    """Seconds by thread of a process that it was ready to run and had no core, within the block.

    Looked up again and again, since a thread's are gone when it ends; none where the kernel does
    not say (it does on Linux).
    """
    found: dict[str, float] = {}
    first: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        own = str(threading.get_native_id())
        while True:
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    seconds = int(task.read_text().split()[1]) / 1e9
                    name = task.parent.name
                    found[name] = seconds - first.setdefault(name, seconds)
            found.pop(own, None)
            if ended.wait(0.1):
                return

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield found
    finally:
        ended.set()
        looker.join()


def test_requests_are_out_together(tmp_path: Path) -> None:
    # A loose bound that holds on a busy machine: one after the other would give 1/16.
    assert throughput(tmp_path, 160, 16).share > 0.25


@pytest.mark.slow
def test_throughput_is_near_the_ideal_and_memory_is_flat(tmp_path: Path) -> None:
    import resource

    throughput(tmp_path / "warm", 64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[Throughput] = []
    # Whole waves of 64: a last one of fewer rows takes as long. What else the machine does can
    # only slow a run, so the best of a few is what the judge can do.
    best = 0.0
    while len(found) < 3 or (best < 0.8 and len(found) < 6):
        found.append(throughput(tmp_path / f"measured-{len(found)}", 32 * 64, 64))
        best = max(best, found[-1].undisturbed)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(found, f"memory grew by {grown:.0f} MiB")
    assert best >= 0.8
    assert grown < 50
