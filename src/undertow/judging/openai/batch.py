"""The Batch API: half the price, an answer within a day; submit, poll, resume, merge.

A batch is known by the hash of its requests, which is written to disk and to the batch's own
metadata: a run that was killed at any point finds it again and never submits it twice.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import openai
from openai import OpenAI

from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.judging.base import Usage
from undertow.judging.openai.access import Access, address, check_access
from undertow.judging.openai.asker import Account, Outcome, over_budget
from undertow.judging.openai.cache import Paid, Reply, ReplyCache
from undertow.judging.openai.endpoint import request_body
from undertow.judging.openai.replies import BrokenReplyError, read_completion, usage_in
from undertow.judging.openai.rubrics import Rubric
from undertow.study.files import fingerprint, write_json
from undertow.study.sources import locked, say
from undertow.texts.untrusted import visible

ENDED = ("completed", "failed", "expired", "cancelled")
URL: Final = "/v1/chat/completions"
UNUSABLE = ("failed", "cancelling", "cancelled")
LISTED = 100  # batches of the account that are looked through for a lost one
NOT_DONE = "judge: not done by the batch"


def run_batch(
    settings: OpenAiJudgeSettings,
    rubric: Rubric,
    requests: Mapping[str, list[dict[str, str]]],
    account: Account,
    cache: ReplyCache,
    known: Callable[[str], Reply | None],
    judge: str,
) -> Iterator[tuple[str, Outcome]]:
    """Outcomes by key once the batch has ended; replies are merged into the cache in one step.

    requests: key -> chat messages. known: a reply that can be used as it is. The batch's id is
    kept beside the cache until it is merged. Raises UndertowError where the batch failed or would
    pass max_usd.
    """
    name = fingerprint("batch", judge, sorted(requests))
    record = cache.path.parent / "batches" / f"{name}.json"
    merged = record.with_suffix(".merged")
    access = check_access(settings)
    _check_budget(settings, requests, account, cache, record)
    with (
        locked(record, "waits for this batch"),
        access.blocking_client(settings.timeout) as client,
    ):
        replies = {key: known(key) for key in requests}
        if all(reply is not None for reply in replies.values()):
            # Another process waited for the same batch, and has merged it.
            yield from ((key, Outcome(reply, Usage())) for key, reply in replies.items() if reply)
            return
        try:
            batch = _submitted(client, record, merged, name, settings, rubric, requests)
            batch = _ended(client, batch, settings.poll_seconds)
            outcomes = _outcomes(client, batch, requests, account)
        except openai.OpenAIError as error:
            text = " ".join(visible(access.redacted(str(error))).split())
            raise UndertowError(
                f"the batch {name[:12]} at {address(settings)} did not go on: {text[:300]}",
                "run the same command again: the batch is taken up where it is",
            ) from None
        outcomes = {key: _redacted(outcome, access) for key, outcome in outcomes.items()}
        cache.put(
            [Paid(key, done.reply, done.usage) for key, done in outcomes.items() if done.kept],
            lost=sum((done.usage for done in outcomes.values() if not done.kept), Usage()),
        )
        # A batch that has left rows undone must not be taken up again in place of a new one.
        write_json(merged, {"ids": [*_ids(merged), batch.id]})
        record.unlink(missing_ok=True)
        yield from outcomes.items()


def _check_budget(
    settings: OpenAiJudgeSettings,
    requests: Mapping[str, list[dict[str, str]]],
    account: Account,
    cache: ReplyCache,
    record: Path,
) -> None:
    if settings.max_usd is None or record.exists():
        return
    dearest = sum(map(account.dearest, requests.values()))
    if (cache.spent().usd or 0.0) + dearest > settings.max_usd:
        raise over_budget(settings.max_usd)


def _submitted(
    client: OpenAI,
    record: Path,
    merged: Path,
    name: str,
    settings: OpenAiJudgeSettings,
    rubric: Rubric,
    requests: Mapping[str, list[dict[str, str]]],
) -> Any:
    """The batch of these requests: the one that is under way, else a new one."""
    if record.exists():
        return client.batches.retrieve(json.loads(record.read_text(encoding="utf-8"))["id"])
    # Killed between submitting and writing the id: the batch's own metadata tells.
    for batch in client.batches.list(limit=LISTED):
        known = (batch.metadata or {}).get("undertow") == name
        if known and batch.id not in _ids(merged) and batch.status not in UNUSABLE:
            write_json(record, {"id": batch.id})
            return batch
    lines = (
        json.dumps(
            {
                "custom_id": key,
                "method": "POST",
                "url": URL,
                "body": request_body(settings, rubric, messages, settings.reply != "text"),
            }
        )
        for key, messages in requests.items()
    )
    uploaded = client.files.create(
        file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch"
    )
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint=URL,
        completion_window="24h",
        metadata={"undertow": name},
    )
    write_json(record, {"id": batch.id})
    say(f"submitted {len(requests)} rows as batch {batch.id}; stopping this command loses nothing")
    return batch


def _ids(merged: Path) -> list[str]:
    if not merged.exists():
        return []
    ids: list[str] = json.loads(merged.read_text(encoding="utf-8"))["ids"]
    return ids


def _ended(client: OpenAI, batch: Any, poll_seconds: float) -> Any:
    while batch.status not in ENDED:
        time.sleep(poll_seconds)
        batch = client.batches.retrieve(batch.id)
    return batch


def _outcomes(
    client: OpenAI,
    batch: Any,
    requests: Mapping[str, list[dict[str, str]]],
    account: Account,
) -> dict[str, Outcome]:
    """Every request's outcome; what an expired batch has not done is left for a later run."""
    missing = Outcome(Reply("", f"{NOT_DONE} ({batch.status})"), Usage(), kept=False)
    outcomes = dict.fromkeys(requests, missing)
    for file in (batch.output_file_id, batch.error_file_id):
        if not file:
            continue
        # Lines end at \n alone: U+2028 and others that str.splitlines takes may stand in a reply.
        for line in client.files.content(file).content.split(b"\n"):
            row = _row(line)
            key = row.get("custom_id")
            if isinstance(key, str) and key in outcomes:
                outcomes[key] = _outcome(row, requests[key], account)
    return outcomes


def _row(line: bytes) -> dict[str, Any]:
    """A line of a result file; empty where it is none, and its row is then left undone."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _outcome(row: dict[str, Any], messages: list[dict[str, str]], account: Account) -> Outcome:
    response = row.get("response") or {}
    status, body = response.get("status_code"), json.dumps(response.get("body"))
    if status == 200:
        try:
            reply, tokens = read_completion(body)
        except BrokenReplyError as error:
            spent = account.of(error.tokens, messages)
            return Outcome(Reply(error.body, str(error)), spent, kept=False)
        return Outcome(reply, account.of(tokens, messages, reply))
    said = usage_in(body)
    code = status or (row.get("error") or {}).get("code") or "no reply"
    spent = account.of(said, messages) if said else Usage()
    text = body if response.get("body") else ""
    return Outcome(Reply(text, f"{NOT_DONE} ({code})"), spent, kept=False)


def _redacted(outcome: Outcome, access: Access) -> Outcome:
    text = outcome.reply.text
    return outcome._replace(reply=outcome.reply._replace(text=text and access.redacted(text)))
