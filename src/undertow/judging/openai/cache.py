"""Verdicts that have been paid for, shared by all cells of a checkout, and what they cost.

One SQLite file in write-ahead mode: two processes may read and write at once, and what was
committed before a kill is there after it. Holds model replies, hence lies outside the results.
"""

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from undertow.judging.base import Usage

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    usd REAL NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS judges (judge TEXT PRIMARY KEY);
INSERT OR IGNORE INTO spent VALUES (1, 0, 0, 0);
"""
SECONDS_TO_WAIT = 60.0  # for another process's transaction


class Reply(NamedTuple):
    """What a model judge answered, before the rubric makes a verdict of it.

    text is None where there is none, and reason then says why.
    """

    text: str | None
    reason: str | None = None


class Paid(NamedTuple):
    """A reply with what it cost."""

    key: str
    reply: Reply
    usage: Usage


class ReplyCache:
    """Replies by key, readable or not; safe under threads and processes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "replies.sqlite"
        self._lock = threading.Lock()
        self._trusted: set[str] = set()
        self._database = sqlite3.connect(
            self.path, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
        )
        # SQLite does not wait for another process while it changes the journal mode.
        with FileLock(folder / "replies.lock"):
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(SCHEMA)
        # A commit then survives a killed process, and only a power cut can lose the last ones.
        self._database.execute("PRAGMA synchronous=NORMAL")

    def get(self, key: str) -> Reply | None:
        with self._lock:
            row = self._database.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return Reply(*json.loads(row[0])) if row else None

    def put(self, paid: list[Paid], lost: Usage | None = None) -> None:
        """Keep replies and count what they and lost requests cost, all of it or nothing."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(
                    "INSERT OR REPLACE INTO replies VALUES (?, ?)",
                    [(key, json.dumps(reply)) for key, reply, _ in paid],
                )
                self._count([*(usage for _, _, usage in paid), *([lost] if lost else [])])
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def count(self, usage: Usage) -> None:
        """Count a request that was paid for and gave no reply to keep."""
        with self._lock:
            self._count([usage])

    def _count(self, costs: list[Usage]) -> None:
        self._database.execute(
            "UPDATE spent SET usd = usd + ?, prompt_tokens = prompt_tokens + ?, "
            "completion_tokens = completion_tokens + ?",
            (
                sum(cost.usd or 0.0 for cost in costs),
                sum(cost.prompt_tokens for cost in costs),
                sum(cost.completion_tokens for cost in costs),
            ),
        )

    def spent(self) -> Usage:
        """All that this checkout has spent on model judges."""
        with self._lock:
            usd, prompt, completion = self._database.execute(
                "SELECT usd, prompt_tokens, completion_tokens FROM spent"
            ).fetchone()
        return Usage(prompt, completion, usd)

    def trust(self, judge: str) -> None:
        """Note that the endpoint has let a judge in, by its fingerprint."""
        if judge not in self._trusted:
            with self._lock:
                self._database.execute("INSERT OR IGNORE INTO judges VALUES (?)", (judge,))
            self._trusted.add(judge)

    def trusts(self, judge: str) -> bool:
        with self._lock:
            found = self._database.execute("SELECT 1 FROM judges WHERE judge = ?", (judge,))
            return found.fetchone() is not None

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        self._database.close()


def cache_key(judge: str, prompt: str, response: str) -> str:
    """SHA-256 (hex) over all that a reply depends on: the judge's fingerprint and the row.

    JSON in ASCII, because a response may hold unpaired surrogates that UTF-8 cannot carry.
    """
    return hashlib.sha256(json.dumps([judge, prompt, response]).encode()).hexdigest()
