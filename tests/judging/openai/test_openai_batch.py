"""The Batch API mode against a local server."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from judging.asked import expected, make, rows, total
from judging.chat_server import Server, started
from undertow.errors import UndertowError
from undertow.judging.base import judge_all
from undertow.judging.openai import batch as openai_batch
from undertow.judging.openai.judge import OpenAiJudge

PRICE = {"input": 2.0, "output": 8.0}


def batched(folder: Path, server: Server, **settings: Any) -> OpenAiJudge:
    return make(folder, server, mode="batch", poll_seconds=0.05, price=PRICE, **settings)


def submissions(server: Server) -> int:
    return server.paths().count("/v1/batches")


def test_a_batch_is_submitted_polled_and_merged_at_half_the_price(tmp_path: Path) -> None:
    with started(tmp_path, latency=0.2) as server:
        verdicts = judge_all(batched(tmp_path, server), [*rows(30), *rows(3)])
        again = judge_all(make(tmp_path, server), rows(30))
        assert not server.requests()[-1].row  # no chat request was made
    assert [verdict.shows_trait for verdict in verdicts] == [*expected(30), *expected(3)]
    assert [verdict.shows_trait for verdict in again] == expected(30)
    spent = total(verdicts)
    full = (spent.prompt_tokens * 2 + spent.completion_tokens * 8) / 1e6
    assert spent.usd == pytest.approx(full / 2) and spent.completion_tokens == 30 * 60
    assert not list((tmp_path / "cache" / "batches").glob("*.json"))


@pytest.mark.parametrize("lost_id", [False, True])
def test_a_restarted_run_takes_up_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_id: bool
) -> None:
    class KilledError(Exception):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    with started(tmp_path, latency=0.3) as server:
        with monkeypatch.context() as patch:
            patch.setattr(openai_batch, "_ended", killed)
            with pytest.raises(KilledError):
                judge_all(batched(tmp_path, server), rows(10))
        (record,) = (tmp_path / "cache" / "batches").glob("*.json")
        if lost_id:
            record.unlink()  # killed between submitting and writing down
        verdicts = judge_all(batched(tmp_path, server), rows(10))
        assert server.paths().count("/v1/files") == 1
    assert [verdict.shows_trait for verdict in verdicts] == expected(10)


def test_what_a_batch_left_undone_is_unscored_and_asked_again(tmp_path: Path) -> None:
    with started(tmp_path, faults={"500": 0.4}) as server:
        first = judge_all(batched(tmp_path, server), rows(20))
        undone = [verdict for verdict in first if verdict.transient]
        assert undone and {verdict.reason for verdict in undone} == {
            "judge: not done by the batch (500)"
        }
        for _ in range(20):
            last = judge_all(batched(tmp_path, server), rows(20))
            if not any(verdict.transient for verdict in last):
                break
    assert [verdict.shows_trait for verdict in last] == expected(20)


def test_line_separators_in_a_reply_do_not_end_its_line(tmp_path: Path) -> None:
    said = {"reason": "a\u2028b\u2029c\x85d", "coherence": 5, "degree": 1, "present": False}
    with started(tmp_path, reply=json.dumps(said, ensure_ascii=False)) as server:
        verdicts = judge_all(batched(tmp_path, server), rows(5))
    assert [verdict.shows_trait for verdict in verdicts] == [False] * 5
    assert verdicts[0].raw is not None and "a\u2028b\u2029c\x85d" in verdicts[0].raw


def test_a_batch_that_did_nothing_is_not_taken_up_again(tmp_path: Path) -> None:
    with started(tmp_path, faults={"500": 1.0}) as server:
        for run in (1, 2):
            verdicts = judge_all(batched(tmp_path, server), rows(5))
            assert all(verdict.transient for verdict in verdicts)
            assert server.paths().count("/v1/files") == run


def test_a_batch_beyond_the_budget_is_not_submitted(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        with pytest.raises(UndertowError, match="max_usd"):
            judge_all(batched(tmp_path, server, max_usd=0.01), rows(50))
        assert server.paths() == []


def test_two_processes_do_not_submit_the_same_batch_twice(tmp_path: Path) -> None:
    with started(tmp_path, latency=0.3) as server:
        found: list[list[bool | None]] = []

        def work() -> None:
            verdicts = judge_all(batched(tmp_path, server), rows(10))
            found.append([verdict.shows_trait for verdict in verdicts])

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.paths().count("/v1/files") == 1
    assert found == [expected(10)] * 2
