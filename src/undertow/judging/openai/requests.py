"""One row to one reply through the Chat Completions API, however the endpoint behaves.

Knows the client, retries, pace and budget; knows neither caches nor what a reply means.
The API key is held by the client alone and is taken out of everything that leaves this module.
"""

import asyncio
import datetime
import os
import random
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai
from openai import AsyncOpenAI

from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.judging.base import Usage
from undertow.judging.openai.cache import Reply
from undertow.judging.openai.pace import Pace
from undertow.judging.openai.prices import CHARACTERS_PER_TOKEN, Price, usage
from undertow.judging.openai.replies import BROKEN, BrokenReplyError, read_completion
from undertow.judging.openai.rubrics import Rubric

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT = 60.0  # seconds before one retry, whatever Retry-After asks for
OVERHEAD = 500  # tokens of a request beside its messages: schema and chat format
NO_KEY = "none"  # for endpoints that ask for no key; the client insists on one

TIMED_OUT = "judge: timed out"
UNREACHABLE = "judge: no connection"
RATE_LIMITED = "judge: rate limit"
SERVER_ERROR = "judge: server error"
REJECTED = "judge: request rejected"


class Outcome(NamedTuple):
    """A reply with what it cost; a transient one says why there is none for now."""

    reply: Reply
    usage: Usage
    transient: bool = False


class _Failed(NamedTuple):
    """One attempt without a reply."""

    reason: str
    raw: str = ""
    wait: float = 0.0  # seconds that the endpoint asks for
    again: bool = True


def endpoint(settings: OpenAiJudgeSettings) -> str:
    """The endpoint's address, without anything secret that stands in it."""
    parts = urlsplit(settings.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def make_client(settings: OpenAiJudgeSettings) -> AsyncOpenAI:
    """The official client; retries are ours, so that each one is paced and counted."""
    key = os.environ.get("OPENAI_API_KEY") or ""
    if not key and endpoint(settings) == OPENAI:
        raise UndertowError(
            "judging.judge is openai, and OPENAI_API_KEY is not set",
            "export OPENAI_API_KEY=..., or set judging.judge: {kind: phrases} in params.yaml",
        )
    return AsyncOpenAI(
        api_key=key or NO_KEY,
        base_url=settings.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI,
        max_retries=0,
        timeout=settings.timeout,
    )


def request_body(
    settings: OpenAiJudgeSettings,
    rubric: Rubric,
    messages: list[dict[str, str]],
    with_schema: bool,
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


def bound_tokens(messages: list[dict[str, str]]) -> int:
    """No request has more prompt tokens: a token is at least one byte."""
    return sum(len(message["content"].encode()) for message in messages) + OVERHEAD


def expected_tokens(messages: list[dict[str, str]]) -> int:
    """About how many prompt tokens a request has."""
    characters = sum(len(message["content"]) for message in messages)
    return round(characters / CHARACTERS_PER_TOKEN) + OVERHEAD // 2


class Budget:
    """Lets a request leave only if all that are out, at their dearest, stay within the limit."""

    def __init__(self, limit: float | None, spent: Callable[[], float]) -> None:
        self._limit = limit
        self._spent = spent
        self._out = 0.0
        self._changed = asyncio.Condition()

    async def take(self, usd: float) -> bool:
        """Reserve; False where the limit leaves no room even once all others have settled."""
        if self._limit is None:
            return True
        async with self._changed:
            while self._spent() + self._out + usd > self._limit:
                if self._out <= 0:
                    return False
                await self._changed.wait()
            self._out += usd
        return True

    async def settle(self, usd: float) -> None:
        if self._limit is None:
            return
        async with self._changed:
            # Sums of floats do not come back to 0 by themselves, and the last row would wait.
            self._out = 0.0 if self._out - usd < 1e-12 else self._out - usd
            self._changed.notify_all()


class Asker:
    """Asks for verdicts on rows, until a reply is had or the attempts are used up."""

    def __init__(
        self,
        settings: OpenAiJudgeSettings,
        rubric: Rubric,
        client: AsyncOpenAI,
        price: Price | None,
        budget: Budget,
        keep: Callable[[Usage], None],
    ) -> None:
        self._settings = settings
        self._rubric = rubric
        self._client = client
        self._price = price
        self._budget = budget
        self._count_lost = keep
        self._pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        self._schema = settings.reply != "text"
        self._schema_works = settings.reply == "schema"
        self.stop: UndertowError | None = None  # no further request leaves once this is set

    async def ask(self, messages: list[dict[str, str]], commit: Callable[[Outcome], None]) -> None:
        """Hand the outcome to `commit`, while its cost is still reserved; nothing when stopped."""
        dearest = self._dearest(messages)
        failed = _Failed(TIMED_OUT)
        for attempt in range(self._settings.attempts):
            if self.stop or not await self._may_spend(dearest):
                return
            try:
                await self._pace.wait(expected_tokens(messages))
                if self.stop:
                    return
                answered = await self._attempt(messages)
                if isinstance(answered, Outcome):
                    commit(answered)
                    return
            finally:
                await self._budget.settle(dearest)
            failed = answered
            if self.stop:
                return
            if not failed.again:
                break
            if attempt + 1 < self._settings.attempts:
                await asyncio.sleep(self._pause(attempt, failed.wait))
        commit(Outcome(Reply(failed.raw, failed.reason), Usage(), transient=True))

    def _dearest(self, messages: list[dict[str, str]]) -> float:
        if self._price is None:
            return 0.0
        return self._price.usd(bound_tokens(messages), self._settings.max_completion_tokens)

    async def _may_spend(self, usd: float) -> bool:
        if await self._budget.take(usd):
            return True
        self.stop = self.stop or over_budget(self._settings.max_usd)
        return False

    def _pause(self, attempt: int, asked_for: float) -> float:
        jittered = self._settings.backoff * float(2**attempt) * random.uniform(0.5, 1.5)
        return min(max(jittered, asked_for), LONGEST_WAIT)

    async def _attempt(self, messages: list[dict[str, str]]) -> Outcome | _Failed:
        with_schema = self._schema
        try:
            body = await self._send(messages, with_schema)
            reply, prompt, completion = read_completion(body)
        except openai.APITimeoutError:
            # The endpoint may have done the work and charge for it.
            self._count_lost(usage(self._price, expected_tokens(messages), 0))
            return _Failed(TIMED_OUT)
        except openai.APIConnectionError:
            return _Failed(UNREACHABLE)
        except openai.APIStatusError as error:
            return await self._refused(error, messages, with_schema)
        except BrokenReplyError as error:
            return _Failed(BROKEN, self._redacted(error.body))
        self._pace.accepted()
        self._schema_works |= with_schema
        text = None if reply.text is None else self._redacted(reply.text)
        return Outcome(Reply(text, reply.reason), usage(self._price, prompt, completion))

    async def _send(self, messages: list[dict[str, str]], with_schema: bool) -> str:
        """The body of the answer to one request."""
        # The client's plain `post`: its typed `parse` walks through schema and messages on every
        # request, which takes half of this process's time and halves the throughput.
        body = request_body(self._settings, self._rubric, messages, with_schema)
        return await self._client.post("/chat/completions", body=body, cast_to=str)

    async def _refused(
        self, error: openai.APIStatusError, messages: list[dict[str, str]], with_schema: bool
    ) -> Outcome | _Failed:
        status = error.status_code
        if status in (401, 403, 404) or error.code == "insufficient_quota":
            self.stop = self.stop or self._unusable(error)
            return _Failed(REJECTED, again=False)
        if status == 429:
            self._pace.rejected()
            return _Failed(RATE_LIMITED, wait=_retry_after(error))
        if status in (408, 409) or status >= 500:
            return _Failed(SERVER_ERROR, wait=_retry_after(error))
        if with_schema and not self._schema_works:
            self._schema = False
            return await self._attempt(messages)
        return _Failed(f"{REJECTED} ({status})", self._redacted(error.message), again=False)

    def _unusable(self, error: openai.APIStatusError) -> UndertowError:
        where = endpoint(self._settings)
        remedy = {
            401: "check OPENAI_API_KEY",
            403: "check that the key may use this model",
            404: "check judging.judge.model and judging.judge.base_url in params.yaml",
        }.get(error.status_code, "add credit to the account behind OPENAI_API_KEY")
        return UndertowError(
            f"{where} does not let {self._settings.model} judge: HTTP {error.status_code}"
            f"{f', {error.code}' if error.code else ''}",
            f"{remedy}; verdicts so far are kept and not paid for again",
        )

    def _redacted(self, text: str) -> str:
        key = self._client.api_key
        return text if key == NO_KEY else text.replace(key, "[key]")


def over_budget(limit: float | None) -> UndertowError:
    return UndertowError(
        f"judging stopped before judging.judge.max_usd = {limit} would be passed; "
        "verdicts so far are kept",
        "raise judging.judge.max_usd in params.yaml and run the same command again, or see what "
        "is left to pay: python cli.py judge --estimate",
    )


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds in Retry-After, in either of its forms; 0 where there is none."""
    headers = error.response.headers
    with suppress(ValueError):
        if milliseconds := headers.get("retry-after-ms"):
            return float(milliseconds) / 1000
    asked = headers.get("retry-after", "0")
    with suppress(ValueError):
        return float(asked)
    with suppress(ValueError, TypeError):
        left = parsedate_to_datetime(asked) - datetime.datetime.now(datetime.UTC)
        return max(0.0, left.total_seconds())
    return 0.0
