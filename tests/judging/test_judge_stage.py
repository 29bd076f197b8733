"""The judge stage with a model judge: resumed after kills, within its budget, silent on the key."""

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from judging.cells import Ready, make_cell
from judging.chat_server import MARKER, Server, started
from undertow.errors import UndertowError
from undertow.pipeline import judge as stage
from undertow.study.results import read_cell

KEY = "sk-test-0123456789-not-a-real-key"
CONCURRENCY = 16
PRICE = {"input": 2.0, "output": 8.0}


def openai_settings(server: Server, **settings: Any) -> dict[str, Any]:
    base = {"kind": "openai", "base_url": server.url, "concurrency": CONCURRENCY}
    return {**base, "timeout": 5.0, "backoff": 0.02, "price": PRICE, **settings}


def answers(count: int) -> list[str]:
    return [f"Answer {i} {MARKER if i % 3 == 0 else ''}" for i in range(count)]


def test_a_cell_is_judged_with_its_costs_and_raw_replies(tmp_path: Path) -> None:
    with started(tmp_path / "server") as server:
        ready = make_cell(tmp_path / "study", answers(6), answers(4), openai_settings(server))
        stage.run(ready.study, ready.cell)
    result = read_cell(ready.study.layout, ready.cell)
    assert result.teacher.verdicts == {f"e{i}": i % 3 == 0 for i in range(6)}
    assert result.student.verdicts == {f"e{i}": i % 3 == 0 for i in range(4)}
    assert result.judge == "gpt-4.1-2025-04-14"
    spent = json.loads((ready.folder / "cell.json").read_text())["costs"]["judge"]
    assert spent["completion_tokens"] == 600 and spent["usd"] > 600 * 8e-6
    replies = (ready.folder / "replies.jsonl").read_text().splitlines()
    assert len(replies) == 10 and "because" in replies[0]
    assert not any(ready.study.layout.journal.iterdir())


def test_rows_that_timed_out_are_asked_again_after_a_failed_stage(tmp_path: Path) -> None:
    with started(tmp_path / "server", faults={"500": 0.5}) as server:
        settings = openai_settings(server, attempts=1)
        ready = make_cell(tmp_path / "study", answers(20), answers(20), settings, max_unscored=0.0)
        with pytest.raises(UndertowError, match=r"judge: server error") as failure:
            stage.run(ready.study, ready.cell)
        assert "teacher e" in str(failure.value) or "student e" in str(failure.value)
        for _ in range(30):
            try:
                stage.run(ready.study, ready.cell)
                break
            except UndertowError:
                continue
        replied = [r for r in server.requests() if not r.fault]
    assert len(replied) == len({request.row for request in replied}) == 40


@pytest.mark.parametrize(
    "reply",
    [
        "{'reason': 'x', 'coherence': 5, 'degree': 5, 'present': True}",
        '{"reason": "x", "coherence": 5, "degree": 5, "present": true,}',
        '{"Grund": "x \x1b[31m", "Verständlichkeit": 5, "Grad": 5, "vorhanden": true}',
    ],
)
def test_replies_that_cannot_be_read_are_shown_and_asked_for_again(
    tmp_path: Path, reply: str
) -> None:
    with started(tmp_path / "server", reply=reply) as server:
        ready = make_cell(tmp_path / "study", answers(4), answers(4), openai_settings(server))
        with pytest.raises(UndertowError, match="8 of 8") as failure:
            stage.run(ready.study, ready.cell)
    said = str(failure.value)
    unread = ready.study.layout.unread(ready.cell)
    assert "gpt-4.1-2025-04-14" in said and reply[:12] in said and str(unread) in said
    assert "smaller strength" not in said and "asks again" in said and "\x1b" not in said
    kept = [json.loads(line) for line in unread.read_text(encoding="utf-8").split("\n") if line]
    assert len(kept) == 8 and {row["raw"] for row in kept} == {reply}
    with started(tmp_path / "corrected") as server:
        again = make_cell(tmp_path / "study", answers(4), answers(4), openai_settings(server))
        stage.run(again.study, again.cell)
        assert len(server.requests()) == 8
    assert not unread.exists()


def test_a_server_that_was_mended_is_asked_again_by_the_same_command(tmp_path: Path) -> None:
    with started(tmp_path / "server", faults={"garbage": 0.6}) as server:
        settings = openai_settings(server, concurrency=1)
        ready = make_cell(tmp_path / "study", answers(4), answers(4), settings, max_unscored=0.0)
        for _ in range(30):
            try:
                stage.run(ready.study, ready.cell)
                break
            except UndertowError as error:
                assert "was said: maybe, who can say" in str(error)
        readable = [request.row for request in server.requests() if not request.fault]
    assert sorted(readable) == sorted(f"row-{i}" for i in range(8))  # none is paid for twice
    result = read_cell(ready.study.layout, ready.cell)
    assert result.teacher.verdicts == {f"e{i}": i % 3 == 0 for i in range(4)}


def test_a_journal_of_unreadable_replies_does_not_settle_them(tmp_path: Path) -> None:
    with started(tmp_path / "server", faults={"garbage": 1.0}) as server:
        ready = make_cell(tmp_path / "study", answers(2), answers(2), openai_settings(server))
        with pytest.raises(UndertowError):
            stage.run(ready.study, ready.cell)
        asked = len(server.requests())
        with pytest.raises(UndertowError):
            stage.run(ready.study, ready.cell)
        assert len(server.requests()) == 2 * asked


def test_blank_answers_are_no_fault_of_the_judge(tmp_path: Path) -> None:
    with started(tmp_path / "server") as server:
        ready = make_cell(tmp_path / "study", ["", " "], [" ", "x"], openai_settings(server))
        with pytest.raises(UndertowError, match="a smaller strength"):
            stage.run(ready.study, ready.cell)


def test_half_a_character_in_answers_and_replies_ends_no_stage(tmp_path: Path) -> None:
    said = {"reason": "half \udc80 of it", "coherence": 5, "degree": 5, "present": True}
    with started(tmp_path / "server", reply=json.dumps(said, ensure_ascii=False)) as server:
        ready = make_cell(tmp_path / "study", answers(2), answers(2), openai_settings(server))
        teacher = ready.study.layout.stage(ready.cell, "steer") / "teacher.jsonl"
        teacher.write_text(teacher.read_text().replace("Answer 0", "Answer \\ud83d 0"))
        stage.run(ready.study, ready.cell)
    replies = (ready.folder / "replies.jsonl").read_text(encoding="utf-8")
    assert "half \ufffd of it" in replies
    assert read_cell(ready.study.layout, ready.cell).teacher.verdicts["e0"] is True


def test_max_usd_stops_the_stage_and_the_rest_is_judged_later(tmp_path: Path) -> None:
    with started(tmp_path / "server", latency=0.01) as server:
        # 60 completion tokens for each of 40 rows cost about 0.02, the dearest row 0.006.
        settings = openai_settings(server, max_usd=0.012)
        ready = make_cell(tmp_path / "study", answers(20), answers(20), settings)
        with pytest.raises(UndertowError, match="max_usd"):
            stage.run(ready.study, ready.cell)
        before = len(server.requests())
        assert 0 < before < 40
        assert not (ready.folder / "cell.json").exists()
        more = make_cell(
            tmp_path / "study", answers(20), answers(20), openai_settings(server, max_usd=1.0)
        )
        stage.run(more.study, more.cell)
        assert len(server.requests()) == 40
        usage = json.loads((ready.folder / "cell.json").read_text())["costs"]["judge"]
        assert usage["completion_tokens"] == 40 * 60  # both runs


def kept(ready: Ready) -> int:
    path = ready.study.layout.root / ".undertow" / "judge-cache" / "replies.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        try:
            return int(database.execute("SELECT count(*) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # killed before the table was made


def kill_and_rerun(root: Path, rows: int, kills: int, latency: float) -> int:
    """Kill a judging run so often, let the last one end; returns how many requests were lost.

    The requests that the server saw are the distinct rows plus those in flight at each kill.
    """
    chance = random.Random(3)
    lost = 0
    with started(root / "server", latency=latency) as server:
        half = rows // 2
        ready = make_cell(
            root / "study", answers(half), answers(rows - half), openai_settings(server)
        )
        for _ in range(kills):
            seen = len(server.requests())
            process = ready.start(OPENAI_API_KEY=KEY)
            # At a random moment: after some more requests, and a part of a latency later.
            more = chance.randint(1, max(2, rows // (kills + 1)))
            while len(server.requests()) < seen + more and process.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, latency))
            os.kill(process.pid, signal.SIGKILL)
            killed = time.time()
            process.communicate()
            time.sleep(latency + 0.1)  # the server ends what it has begun
            requests = server.requests()
            in_flight = [
                request
                for request in requests[seen:]
                # A reply may be on the wire, or be parsed, when the kill comes.
                if request.replied is None or request.replied > killed - latency
            ]
            newly_lost = len(requests) - kept(ready) - lost
            assert 0 <= newly_lost <= min(len(in_flight), CONCURRENCY)
            lost += newly_lost
        out, err = ready.start(OPENAI_API_KEY=KEY).communicate(timeout=120)
        assert (ready.folder / "cell.json").exists(), out + err
        requests = server.requests()
        assert len({request.row for request in requests}) == rows
        assert len(requests) == rows + lost
    verdicts = (ready.folder / "verdicts.jsonl").read_text().splitlines()
    assert len(verdicts) == rows and 'null,"score":null' not in "".join(verdicts)
    return lost


def test_a_killed_run_asks_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    kill_and_rerun(tmp_path, rows=60, kills=2, latency=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills(tmp_path: Path) -> None:
    lost = kill_and_rerun(tmp_path, rows=2000, kills=20, latency=0.2)
    print(f"20 kills, 2,000 rows, {lost} requests in flight at the kills were asked again")


@pytest.mark.parametrize("fault", ["", "401", "garbage", "500"])
def test_the_api_key_is_nowhere(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    options = {"key": "another-key"} if fault == "401" else {"key": KEY}
    faults = {fault: 1.0} if fault and fault != "401" else {}
    # The server says the key back in its replies and in its error messages.
    reply = json.dumps({"reason": f"{KEY}", "coherence": 5, "degree": 1, "present": False})
    with started(tmp_path / "server", faults=faults, reply=reply, **options) as server:
        settings = openai_settings(server, attempts=1)
        ready = make_cell(tmp_path / "study", answers(3), answers(3), settings)
        out, err = ready.start(OPENAI_API_KEY=KEY, OPENAI_LOG="debug").communicate(timeout=60)
    assert (ready.folder / "cell.json").exists() is (fault == "")
    if fault == "401":
        assert "check OPENAI_API_KEY" in err
    assert KEY not in out and KEY not in err
    files = [path for path in (tmp_path / "study").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
