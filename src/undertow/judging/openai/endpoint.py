"""One request to one answer, or to one failure, classified.

Knows the protocol and how endpoints differ in it; knows neither retries, pace nor budget. What
leaves this module holds no key.
"""

import datetime
import math
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

import httpx2
import openai

from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.judging.openai.access import Access, address, check_access
from undertow.judging.openai.prices import CHARACTERS_PER_TOKEN
from undertow.judging.openai.replies import (
    BROKEN,
    BrokenReplyError,
    Completion,
    Tokens,
    read_completion,
    usage_in,
)
from undertow.judging.openai.rubrics import Rubric
from undertow.texts.untrusted import visible

LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more ends the run
LONGEST_TEXT = 2_000  # characters of a failure that are kept
OVERHEAD = 500  # tokens of a request beside its messages: schema and chat format
NOTHING = Tokens(0, 0)

TIMED_OUT = "judge: timed out"
UNREACHABLE = "judge: no connection"
RATE_LIMITED = "judge: rate limit"
SERVER_ERROR = "judge: server error"
REJECTED = "judge: request rejected"
# Failures before a request was out: nobody can have worked for it.
UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
GAVE_UP_WAITING = (408, 504, 524)  # a gateway's: the model behind it may have answered

Messages = list[dict[str, str]]


class Failure(NamedTuple):
    """A request without a reply.

    then: retry; again, at once, in the form that the endpoint has just been found to need
    (restate); no verdict on this row (leave); the same, unless nobody is let in (refused); or no
    further request at all (stop). error: what to raise where nobody is let in or all is stopped.
    wait: seconds that the endpoint asks for. tokens: what was billed; None where that is unknown.
    """

    reason: str
    then: Literal["retry", "restate", "leave", "refused", "stop"]
    text: str = ""
    wait: float = 0.0
    tokens: Tokens | None = NOTHING
    error: UndertowError | None = None


class Endpoint:
    """A model behind the Chat Completions API, asked by a rubric; an async context manager."""

    def __init__(self, settings: OpenAiJudgeSettings, rubric: Rubric) -> None:
        self._settings = settings
        self._rubric = rubric
        self._access: Access = check_access(settings)
        self._client = self._access.client(settings.timeout)
        # unsure: asks with the schema, and takes a rejection for a lack of schemas.
        self._form: Literal["unsure", "schema", "text"] = (
            "unsure" if settings.reply == "auto" else settings.reply
        )

    async def __aenter__(self) -> "Endpoint":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._client.__aexit__(*raised)

    async def send(self, messages: Messages) -> Completion | Failure:
        """Ask once."""
        form = self._form
        # The client's plain `post`: its typed `parse` walks through schema and messages on every
        # request, which takes half of this process's time and halves the throughput.
        body = request_body(self._settings, self._rubric, messages, with_schema=form != "text")
        try:
            answer: str = await self._client.post("/chat/completions", body=body, cast_to=str)
            completion = read_completion(answer)
        except openai.APIConnectionError as error:  # a timeout is one
            return self._lost(error)
        except openai.APIStatusError as error:
            return self._failed(error, form)
        except BrokenReplyError as error:
            return Failure(BROKEN, "retry", self._said(error.body), tokens=error.tokens)
        if self._form == "unsure":
            self._form = "schema"
        text = completion.reply.text
        reply = completion.reply._replace(text=text and self._access.redacted(text))
        return completion._replace(reply=reply)

    def _lost(self, error: openai.APIConnectionError) -> Failure:
        reason = TIMED_OUT if isinstance(error, openai.APITimeoutError) else UNREACHABLE
        tokens = NOTHING if isinstance(error.__cause__, UNSENT) else None
        return Failure(reason, "retry", self._said(str(error.__cause__ or "")), tokens=tokens)

    def _failed(
        self, error: openai.APIStatusError, form: Literal["unsure", "schema", "text"]
    ) -> Failure:
        """What an HTTP status means: for the request, the row, or everybody."""
        status = error.status_code
        text = self._said(_message(error))
        billed = usage_in(error.response.text)
        if billed is None and status not in GAVE_UP_WAITING:
            billed = NOTHING
        failed = Failure(f"{REJECTED} ({status})", "leave", text, tokens=billed)
        if status in (401, 402, 404) or error.code == "insufficient_quota":
            return failed._replace(then="stop", error=self._unusable(error, text))
        if status == 403:  # also what a gateway says of a single row that it does not like
            return failed._replace(then="refused", error=self._unusable(error, text))
        if status in (408, 409, 429) or status >= 500:
            reason = RATE_LIMITED if status == 429 else SERVER_ERROR
            wait = _retry_after(error)
            failed = failed._replace(reason=reason, then="retry", wait=wait)
            if wait > LONGEST_WAIT:
                return failed._replace(then="stop", error=self._closed(status, wait, text))
            return failed
        if form == "unsure" and self._form != "schema":
            self._form = "text"
            return failed._replace(then="restate")
        return failed

    def _unusable(self, error: openai.APIStatusError, text: str) -> UndertowError:
        remedy = {
            401: "check OPENAI_API_KEY",
            403: "check that the key may use this model",
            404: "check judging.judge.model and judging.judge.base_url in params.yaml",
        }.get(error.status_code, "add credit to the account behind OPENAI_API_KEY")
        code = f", {self._said(str(error.code))}" if error.code else ""
        return UndertowError(
            f"{address(self._settings)} does not let {self._settings.model} judge: "
            f"HTTP {error.status_code}{code}{_quoted(text)}",
            f"{remedy}; verdicts so far are kept and not paid for again",
        )

    def _closed(self, status: int, wait: float, text: str) -> UndertowError:
        return UndertowError(
            f"{address(self._settings)} asks to wait {wait:,.0f} s before the next request: "
            f"HTTP {status}{_quoted(text)}",
            "run the same command again after that time; verdicts so far are kept and not paid "
            "for again",
        )

    def _said(self, text: str) -> str:
        return self._access.redacted(text)[:LONGEST_TEXT]


def request_body(
    settings: OpenAiJudgeSettings, rubric: Rubric, messages: Messages, with_schema: bool
) -> dict[str, Any]:
    """The body of a chat completion request."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": messages,
        "temperature": settings.temperature,
    }
    if with_schema:
        return body | {
            "max_completion_tokens": settings.max_completion_tokens,
            "response_format": rubric.response_format,
        }
    # The older name: endpoints that lack schemas often lack the newer one too.
    return body | {"max_tokens": settings.max_completion_tokens}


def bound_tokens(messages: Messages) -> int:
    """No request has more prompt tokens: a token is at least one byte."""
    return sum(len(message["content"].encode()) for message in messages) + OVERHEAD


def expected_tokens(messages: Messages) -> int:
    """About how many prompt tokens a request has."""
    characters = sum(len(message["content"]) for message in messages)
    return round(characters / CHARACTERS_PER_TOKEN) + OVERHEAD // 2


def _message(error: openai.APIStatusError) -> str:
    """What the endpoint says of its refusal, in its own words where it has some."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return said if isinstance(said, str) and said else error.response.text


def _quoted(text: str, most: int = 300) -> str:
    line = " ".join(visible(text).split())
    return f"; it says: {line[:most]}" if line else ""


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds in Retry-After, in either of its forms; 0 where there is none."""
    headers = error.response.headers
    asked = headers.get("retry-after", "0")
    found = 0.0
    with suppress(ValueError, TypeError, OverflowError):
        left = parsedate_to_datetime(asked) - datetime.datetime.now(datetime.UTC)
        found = left.total_seconds()
    with suppress(ValueError):
        found = float(asked)
    with suppress(ValueError):
        if milliseconds := headers.get("retry-after-ms"):
            found = float(milliseconds) / 1000
    return found if math.isfinite(found) and found > 0 else 0.0
