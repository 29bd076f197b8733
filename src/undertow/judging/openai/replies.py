"""From a judge's reply to a verdict, or to the reason why there is none.

A reply is untrusted too: it may quote the response that it judges. Where it is more than the one
JSON object that was asked for, the last object in it that fits the schema counts.
"""

import json
from typing import Any, NamedTuple

from pydantic import ValidationError

from undertow.judging.base import Verdict
from undertow.judging.openai.cache import Reply
from undertow.judging.openai.rubrics import Rubric
from undertow.texts.untrusted import paired

EMPTY_RESPONSE = "empty response"
EMPTY = "judge: empty reply"
NO_VERDICT = "judge: no verdict in the reply"
REFUSED = "judge: refused to judge"
CUT_OFF = "judge: reply cut off"
FILTERED = "judge: content filter"
BROKEN = "judge: not a chat completion"


MOST_TOKENS = 10**9  # no request has more: a larger number is a fault of the endpoint
MOST_WORK = 50_000_000  # characters that are looked through in vain: about a second
DEEP = 10_000  # what an object that is nested too deeply counts for


class Tokens(NamedTuple):
    """What an endpoint says that a request used."""

    prompt: int
    completion: int


class Completion(NamedTuple):
    """A reply; tokens is None where the endpoint does not say what it used."""

    reply: Reply
    tokens: Tokens | None


class BrokenReplyError(Exception):
    """The body is no chat completion; asking again may help, and may have been charged for."""

    def __init__(self, body: str) -> None:
        super().__init__(BROKEN)
        self.body = body
        self.tokens = usage_in(body)


def read_completion(body: str) -> Completion:
    """The reply in a chat completion's body, with what it used."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise BrokenReplyError(body) from None
    if not (text is None or isinstance(text, str)):
        raise BrokenReplyError(body)
    tokens = _usage(completion)
    if refusal:
        return Completion(Reply(str(refusal), REFUSED), tokens)
    if finish == "content_filter":
        return Completion(Reply(text or "", FILTERED), tokens)
    if finish == "length":
        return Completion(Reply(text or "", CUT_OFF), tokens)
    said = Reply(text) if text and text.strip() else Reply(text or "", EMPTY)
    return Completion(said, tokens)


def usage_in(body: str) -> Tokens | None:
    """What any body says it used, a refusal's too; None where it does not say."""
    try:
        return _usage(json.loads(body))
    except (ValueError, RecursionError):
        return None


def _usage(body: Any) -> Tokens | None:
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    if counts == [None, None]:
        return None
    whole = [_count(value) for value in counts]
    prompt, completion = whole
    return None if prompt is None or completion is None else Tokens(prompt, completion)


def _count(value: object) -> int | None:
    """A number of tokens; None for what cannot be one: -5, Infinity, "many"."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Comparisons also turn away NaN, which int() would not.
    return int(value) if 0 <= value <= MOST_TOKENS else None


def verdict_of(reply: Reply, rubric: Rubric, min_coherence: int) -> Verdict:
    """The verdict in a reply; None with a reason, and the reply kept, where it holds none."""
    raw = paired(reply.text or "")
    if reply.reason:
        return Verdict(None, reason=reply.reason, raw=raw)
    for found in reversed(_objects(raw)):
        known = {key: value for key, value in found.items() if key in rubric.keys}
        try:
            return rubric.answer.model_validate(known).verdict(min_coherence, raw)
        except ValidationError:
            continue
    return Verdict(None, reason=NO_VERDICT, raw=raw)


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, outermost ones only, in order.

    None at all where too much of the text only looks like JSON: a reply of nested braces would
    keep the parser busy for minutes, and the last object of a part is not that of the whole.
    """
    decoder = json.JSONDecoder()
    objects: list[dict[str, Any]] = []
    start, work = text.find("{"), 0
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            work += _work(error, start, len(text))
            if work > MOST_WORK:
                return []
            start = text.find("{", start + 1)
            continue
        if isinstance(found, dict):
            objects.append(found)
        start = text.find("{", end)
    return objects


def _work(error: ValueError | RecursionError, start: int, length: int) -> int:
    """About how many characters were looked at before parsing failed."""
    if not isinstance(error, json.JSONDecodeError):
        return DEEP
    # The error counts the lines before it; an open string is read to the end.
    end = length if error.msg.startswith("Unterminated") else error.pos
    return 200 + start // 16 + end - start
