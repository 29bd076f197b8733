"""Endpoints that refuse, bill without answering, or answer nonsense; money is counted all along."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from judging.asked import expected, make, rows, total
from judging.chat_server import started
from undertow.errors import UndertowError
from undertow.judging.base import judge_all
from undertow.judging.openai.cache import Reply, ReplyCache
from undertow.judging.openai.replies import NO_VERDICT, verdict_of
from undertow.judging.openai.rubrics import trait_rubric

PRICE = {"input": 2.0, "output": 8.0}
RUBRIC = trait_rubric("It is so.")


def usd(tokens: tuple[int, int]) -> float:
    return (tokens[0] * PRICE["input"] + tokens[1] * PRICE["output"]) / 1e6


def spent(folder: Path) -> float:
    cache = ReplyCache(folder / "cache")
    try:
        return cache.spent().usd or 0.0
    finally:
        cache.close()


# Money


@pytest.mark.parametrize("fault", ["choiceless", "billed", "hang", "garbage", "length"])
def test_no_bill_passes_the_budget_whether_or_not_there_is_a_reply(
    tmp_path: Path, fault: str
) -> None:
    with started(tmp_path, faults={fault: 1.0}) as server:
        judge = make(tmp_path, server, price=PRICE, max_usd=0.02, timeout=0.2, concurrency=4)
        with pytest.raises(UndertowError, match="max_usd"):
            judge_all(judge, rows(40))
        # A server that hangs may work on: what it would bill is not known.
        billed = 0.0 if fault == "hang" else usd(server.billed())
        assert len(server.requests()) > 2
    assert billed <= spent(tmp_path) + 1e-9 and spent(tmp_path) <= 0.02
    assert fault == "hang" or spent(tmp_path) == pytest.approx(billed)


def test_attempts_that_were_billed_are_part_of_what_a_row_costs(tmp_path: Path) -> None:
    with started(tmp_path, faults={"choiceless": 0.5}) as server:
        verdicts = judge_all(make(tmp_path, server, price=PRICE, attempts=20), rows(10))
        billed = usd(server.billed())
        assert len(server.requests()) > 10
    assert [verdict.shows_trait for verdict in verdicts] == expected(10)
    assert total(verdicts).usd == pytest.approx(billed) == pytest.approx(spent(tmp_path))


@pytest.mark.parametrize(
    "said",
    [
        "none",
        "null",
        '{"prompt_tokens": Infinity, "completion_tokens": 1}',
        '{"prompt_tokens": -5, "completion_tokens": -5}',
        '{"prompt_tokens": NaN, "completion_tokens": NaN}',
        '{"prompt_tokens": "many", "completion_tokens": true}',
        '{"prompt_tokens": 1e300, "completion_tokens": 99999999999999999999}',
        "[1, 2]",
    ],
)
def test_usage_that_cannot_be_is_estimated(tmp_path: Path, said: str) -> None:
    with started(tmp_path, usage=said) as server:
        verdicts = judge_all(make(tmp_path, server, price=PRICE), rows(3))
        billed = usd(server.billed())
    assert [verdict.shows_trait for verdict in verdicts] == expected(3)
    cost = total(verdicts).usd
    assert cost is not None and billed / 2 < cost < billed * 2
    assert spent(tmp_path) == pytest.approx(cost)


def test_a_batch_counts_what_it_was_billed_without_a_reply(tmp_path: Path) -> None:
    with started(tmp_path, faults={"choiceless": 1.0}, usage='{"prompt_tokens": 1000}') as server:
        judge = make(tmp_path, server, price=PRICE, mode="batch", poll_seconds=0.05)
        verdicts = judge_all(judge, rows(4))
    assert all(verdict.transient for verdict in verdicts)
    assert spent(tmp_path) == pytest.approx(4 * 1000 * PRICE["input"] / 2 / 1e6)


# Refusals


def test_a_row_that_is_refused_is_unscored_and_the_others_are_judged(tmp_path: Path) -> None:
    with started(tmp_path, forbidden=r"row-[03]\b") as server:
        judge = make(tmp_path, server, concurrency=1)
        verdicts = judge_all(judge, rows(6))
        refused = [verdict for verdict in verdicts if verdict.shows_trait is None]
        assert [verdict.shows_trait for verdict in verdicts] == [
            None if i in (0, 3) else truth for i, truth in enumerate(expected(6))
        ]
        assert {verdict.reason for verdict in refused} == {"judge: request rejected (403)"}
        assert all("turned away (403)" in (verdict.raw or "") for verdict in refused)
        # The same rows alone, later: the endpoint is known to let this judge in.
        again = judge_all(make(tmp_path, server), [rows(6)[0], rows(6)[3]])
        assert [verdict.reason for verdict in again] == ["judge: request rejected (403)"] * 2


@pytest.mark.parametrize("count", [1, 20, 200])
def test_a_judge_that_is_always_refused_ends_the_run(tmp_path: Path, count: int) -> None:
    with started(tmp_path, faults={"403": 1.0}) as server:
        with pytest.raises(UndertowError, match=r"does not let .* judge: HTTP 403.*turned away"):
            judge_all(make(tmp_path, server, concurrency=4), rows(count))
        assert len(server.requests()) <= 12


def test_a_request_that_is_rejected_says_why(tmp_path: Path) -> None:
    with started(tmp_path, faults={"400": 1.0}) as server:
        (verdict,) = judge_all(make(tmp_path, server), rows(1))
        assert len(server.requests()) == 2  # with a schema, and without
    assert verdict.reason == "judge: request rejected (400)"
    assert verdict.raw is not None and "turned away (400)" in verdict.raw


def test_a_server_that_is_not_there_is_named_by_the_systems_own_words(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        gone = server
    (verdict,) = judge_all(make(tmp_path, gone, attempts=1), rows(1))
    assert verdict.reason == "judge: no connection" and verdict.raw


def test_retry_after_is_followed(tmp_path: Path) -> None:
    with started(tmp_path, faults={"429": 0.5}, retry_after="1.2") as server:
        judge_all(make(tmp_path, server, concurrency=1), rows(4))
        requests = server.requests()
    gaps = [b.received - a.received for a, b in pairwise(requests)]
    waited = [gap for gap, request in zip(gaps, requests, strict=False) if request.fault]
    assert waited and min(waited) >= 1.2


def test_an_endpoint_that_asks_for_hours_ends_the_run(tmp_path: Path) -> None:
    with started(tmp_path, faults={"429": 1.0}, retry_after="7200") as server:
        began = time.monotonic()
        with pytest.raises(UndertowError, match=r"wait 7,200 s.*\n.*after that time"):
            judge_all(make(tmp_path, server, concurrency=2), rows(20))
        assert time.monotonic() - began < 30 and len(server.requests()) <= 2


@pytest.mark.parametrize("asked", ["inf", "nan", "-3", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_that_is_no_wait_is_not_followed(tmp_path: Path, asked: str) -> None:
    with started(tmp_path, faults={"429": 1.0}, retry_after=asked) as server:
        (verdict,) = judge_all(make(tmp_path, server, attempts=2), rows(1))
    assert verdict.reason == "judge: rate limit"


# Replies


def test_a_reply_without_a_verdict_is_asked_for_again_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path / "bad", faults={"garbage": 1.0}) as server:
        judge_all(make(tmp_path, server, base_url=server.url), rows(5))
        kept = ReplyCache(tmp_path / "cache")
        assert len(kept) == 5  # for looking at
        kept.close()
        judge_all(make(tmp_path, server), rows(7))
        assert len(server.requests()) == 12
    assert "asking again about 5 rows" in capsys.readouterr().err


def test_half_a_character_in_a_reply_is_read_around(tmp_path: Path) -> None:
    said = {"reason": "half \udc80 of it", "coherence": 5, "degree": 5, "present": True}
    with started(tmp_path, reply=json.dumps(said, ensure_ascii=False)) as server:
        judge = make(tmp_path, server)
        for _ in ("asked", "cached"):
            (verdict,) = judge_all(judge, rows(1))
            assert verdict.shows_trait is True
            assert verdict.raw is not None and "half \ufffd of it" in verdict.raw


@pytest.mark.parametrize(
    "reply",
    ['{"a":' * 20_000, "{" * 20_000, '{"a' * 60_000, '{"b":1,"a":[' * 20_000, "[" * 20_000],
)
def test_a_reply_of_nested_braces_takes_bounded_time(reply: str) -> None:
    began = time.process_time()
    assert verdict_of(Reply(reply), RUBRIC, 2).reason == NO_VERDICT
    assert time.process_time() - began < 10


def test_where_most_of_a_reply_cannot_be_parsed_no_part_of_it_counts() -> None:
    quoted = '{"reason": "x", "coherence": 5, "degree": 5, "present": true}'
    assert verdict_of(Reply(quoted + '{"a":' * 20_000), RUBRIC, 2).reason == NO_VERDICT


def test_nested_braces_in_place_of_a_completion_are_no_reply(tmp_path: Path) -> None:
    deep: Any = "[" * 20_000
    with started(tmp_path, usage="[]", reply=deep) as server:
        (verdict,) = judge_all(make(tmp_path, server), rows(1))
    assert verdict.reason == NO_VERDICT
