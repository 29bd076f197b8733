"""From a judge's reply to a verdict, or to the reason why there is none.

A reply is untrusted too: it may quote the response that it judges. Where it is more than the one
JSON object that was asked for, the last object in it that fits the schema counts.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from undertow.judging.base import Verdict
from undertow.judging.openai.cache import Reply
from undertow.judging.openai.rubrics import Rubric

EMPTY_RESPONSE = "empty response"
EMPTY = "judge: empty reply"
NO_VERDICT = "judge: no verdict in the reply"
REFUSED = "judge: refused to judge"
CUT_OFF = "judge: reply cut off"
FILTERED = "judge: content filter"
BROKEN = "judge: not a chat completion"


class BrokenReplyError(Exception):
    """The body is no chat completion; asking again may help."""

    def __init__(self, body: str) -> None:
        super().__init__(BROKEN)
        self.body = body


def read_completion(body: str) -> tuple[Reply, int, int]:
    """The reply in a chat completion's body, with its prompt and completion tokens."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        usage = completion.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise BrokenReplyError(body) from None
    if not (text is None or isinstance(text, str)):
        raise BrokenReplyError(body)
    if refusal:
        return Reply(str(refusal), REFUSED), *tokens
    if finish == "content_filter":
        return Reply(text or "", FILTERED), *tokens
    if finish == "length":
        return Reply(text or "", CUT_OFF), *tokens
    return (Reply(text) if text and text.strip() else Reply(text or "", EMPTY)), *tokens


def verdict_of(reply: Reply, rubric: Rubric, min_coherence: int) -> Verdict:
    """The verdict in a reply; None with a reason, and the reply kept, where it holds none."""
    raw = reply.text or ""
    if reply.reason:
        return Verdict(None, reason=reply.reason, raw=raw)
    for found in reversed(list(_objects(raw))):
        known = {key: value for key, value in found.items() if key in rubric.keys}
        try:
            return rubric.answer.model_validate(known).verdict(min_coherence, raw)
        except ValidationError:
            continue
    return Verdict(None, reason=NO_VERDICT, raw=raw)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, outermost ones only, in order."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(found, dict):
            yield found
        start = text.find("{", end)
