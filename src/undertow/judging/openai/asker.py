"""One row to one outcome: attempts, pace and budget around an endpoint.

Knows neither caches nor what a reply means.
"""

import asyncio
import math
import random
from collections.abc import Callable
from typing import NamedTuple

from undertow.config import OpenAiJudgeSettings
from undertow.errors import UndertowError
from undertow.judging.base import Usage
from undertow.judging.openai.cache import Reply
from undertow.judging.openai.endpoint import (
    RATE_LIMITED,
    Endpoint,
    Failure,
    Messages,
    bound_tokens,
    expected_tokens,
)
from undertow.judging.openai.pace import Pace
from undertow.judging.openai.prices import CHARACTERS_PER_TOKEN, Price, usage
from undertow.judging.openai.replies import Tokens

LONGEST_PAUSE = 60.0  # seconds before one retry that the endpoint did not ask for


class Outcome(NamedTuple):
    """A reply with all that its row has cost in this run, attempts without a reply included.

    kept: False where the reply only says why there is none for now.
    """

    reply: Reply
    usage: Usage
    kept: bool = True


Commit = Callable[[Outcome, Usage], None]


class Budget:
    """Lets a request leave only if all that are out, at their dearest, stay within the limit."""

    def __init__(self, limit: float | None, spent: Callable[[], float]) -> None:
        self.limit = limit
        self._spent = spent
        self._out = 0.0
        self._changed = asyncio.Condition()

    async def take(self, usd: float) -> bool:
        """Reserve; False where the limit leaves no room even once all others have settled."""
        if self.limit is None:
            return True
        async with self._changed:
            while self._spent() + self._out + usd > self.limit:
                if self._out <= 0:
                    return False
                await self._changed.wait()
            self._out += usd
        return True

    async def settle(self, usd: float) -> None:
        if self.limit is None:
            return
        async with self._changed:
            # Sums of floats do not come back to 0 by themselves, and the last row would wait.
            self._out = 0.0 if self._out - usd < 1e-12 else self._out - usd
            self._changed.notify_all()


class Account(NamedTuple):
    """What requests cost, said by the endpoint or estimated where it does not say.

    count_lost: takes what was paid for no reply.
    """

    price: Price | None
    most_completion_tokens: int
    budget: Budget
    count_lost: Callable[[Usage], None]

    def dearest(self, messages: Messages) -> float:
        """USD that no request of these messages can pass."""
        if self.price is None:
            return 0.0
        return self.price.usd(bound_tokens(messages), self.most_completion_tokens)

    def of(self, said: Tokens | None, messages: Messages, reply: Reply | None = None) -> Usage:
        """An answer that nobody has seen is taken to have its full length."""
        if said is None:
            length = self.most_completion_tokens
            if reply is not None:
                length = math.ceil(len(reply.text or "") / CHARACTERS_PER_TOKEN)
            said = Tokens(expected_tokens(messages), length)
        return usage(self.price, *said)


class Asker:
    """Asks about rows, until a reply is had or the attempts are used up.

    patience: so many refusals from the first request on end the run; None where the endpoint has
    let this judge in before, so that a refusal is about its row.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        account: Account,
        settings: OpenAiJudgeSettings,
        patience: int | None,
    ) -> None:
        self._endpoint = endpoint
        self._account = account
        self._settings = settings
        self._pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        self._patience = patience
        self.stop: UndertowError | None = None  # no further request leaves once this is set

    async def ask(self, messages: Messages, commit: Commit) -> None:
        """Hand outcome and what of its cost is not counted yet to `commit`; nothing when stopped.

        A reply is committed while its cost is still reserved.
        """
        spent, attempts = Usage(), 0
        while True:
            answer = await self._once(messages, spent, commit)
            if answer is None:
                return
            spent += self._account.of(answer.tokens, messages)
            if self.stop:
                return
            if answer.then == "restate":
                continue  # the endpoint changes its form once: there is no second time
            attempts += 1
            if answer.then != "retry" or attempts == self._settings.attempts:
                break
            await asyncio.sleep(self._pause(attempts - 1, answer.wait))
        commit(Outcome(Reply(answer.text, answer.reason), spent, kept=False), Usage())

    async def _once(self, messages: Messages, spent: Usage, commit: Commit) -> Failure | None:
        """One request; its failure, or None where its reply was committed or nothing may leave."""
        dearest = self._account.dearest(messages)
        if self.stop:
            return None
        if not await self._account.budget.take(dearest):
            self.stop = self.stop or over_budget(self._account.budget.limit)
            return None
        try:
            await self._pace.wait(expected_tokens(messages))
            if self.stop:
                return None
            answer = await self._endpoint.send(messages)
            if isinstance(answer, Failure):
                self._note(answer)
                if answer.tokens is None or any(answer.tokens):
                    self._account.count_lost(self._account.of(answer.tokens, messages))
                return answer
            self._pace.accepted()
            self._patience = None
            cost = self._account.of(answer.tokens, messages, answer.reply)
            commit(Outcome(answer.reply, spent + cost), cost)
            return None
        finally:
            await self._account.budget.settle(dearest)

    def _note(self, failed: Failure) -> None:
        """Slow down, or stop, where a failure says so."""
        if failed.reason == RATE_LIMITED:
            self._pace.rejected()
        if failed.then == "stop":
            self.stop = self.stop or failed.error
        if failed.then == "refused" and self._patience is not None:
            self._patience -= 1
            if self._patience <= 0:
                self.stop = self.stop or failed.error

    def _pause(self, attempt: int, asked_for: float) -> float:
        jittered = self._settings.backoff * float(2**attempt) * random.uniform(0.5, 1.5)
        return max(min(jittered, LONGEST_PAUSE), asked_for)


def over_budget(limit: float | None) -> UndertowError:
    return UndertowError(
        f"judging stopped before judging.judge.max_usd = {limit} would be passed; "
        "verdicts so far are kept",
        "raise judging.judge.max_usd in params.yaml and run the same command again, or see what "
        "is left to pay: python cli.py judge --estimate",
    )
