"""A judge behind the Chat Completions API: cached, resumable, within a budget.

A reply is in the cache before anything else happens to it, so that a killed run never pays for a
row twice; verdicts are made from replies, cached or new, by the same code.
"""

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from undertow.config import OpenAiJudgeSettings
from undertow.errors import ConfigError
from undertow.judging.base import JudgeRow, Usage, Verdict
from undertow.judging.openai.access import OPENAI, address
from undertow.judging.openai.asker import Account, Asker, Budget, Outcome
from undertow.judging.openai.batch import run_batch
from undertow.judging.openai.cache import Paid, Reply, ReplyCache, cache_key
from undertow.judging.openai.endpoint import Endpoint
from undertow.judging.openai.prices import BATCH_FACTOR, Price, price_of
from undertow.judging.openai.replies import EMPTY_RESPONSE, verdict_of
from undertow.judging.openai.rubrics import Rubric
from undertow.study.files import fingerprint
from undertow.study.sources import say

FIRST_REQUESTS = 8  # so many, or all of the first wave, have to be refused before a run ends
Messages = list[dict[str, str]]
Arrival = tuple[str, Outcome]


class OpenAiJudge:
    """Asks a chat model to judge each response by a rubric."""

    def __init__(self, settings: OpenAiJudgeSettings, rubric: Rubric, folder: Path) -> None:
        self._settings = settings
        self._rubric = rubric
        self._folder = folder

    @property
    def name(self) -> str:
        return self._settings.model

    @cached_property
    def fingerprint(self) -> str:
        settings = self._settings
        return fingerprint(
            "openai",
            address(settings),
            settings.model,
            settings.temperature,
            settings.max_completion_tokens,
            settings.max_characters,
            settings.min_coherence,
            settings.reply,
            self._rubric.identity,
        )

    @cached_property
    def price(self) -> Price | None:
        """USD per million tokens, the batch discount included; None where it is not known."""
        settings = self._settings
        if settings.price is not None:
            found: Price | None = Price(settings.price.input, settings.price.output)
        else:
            found = price_of(settings.model) if address(settings) == OPENAI else None
        if found is None:
            if settings.max_usd is not None:
                raise ConfigError(
                    f"judging.judge.max_usd is set, and the price of {settings.model} at "
                    f"{address(settings)} is not known",
                    "add judging.judge.price: {input: ..., output: ...} in USD per million tokens",
                )
            return None
        factor = BATCH_FACTOR if settings.mode == "batch" else 1.0
        return Price(found.input * factor, found.output * factor)

    def messages(self, row: JudgeRow) -> Messages:
        """What is asked about one row."""
        return self._rubric.messages(row.prompt, row.response, self._settings.max_characters)

    def unpaid(self, rows: Sequence[JudgeRow]) -> dict[str, JudgeRow]:
        """The rows whose verdict is not in the cache, once each, by key."""
        cache = ReplyCache(self._folder)
        try:
            keyed = {self._key(row): row for row in rows if row.response.strip()}
            return {key: row for key, row in keyed.items() if self._known(cache, key) is None}
        finally:
            cache.close()

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        """Cached and empty rows first, then each reply as it arrives.

        A reply in the cache that holds no verdict is not used: its row is asked about again.
        Raises UndertowError where the budget or the endpoint allows no further request, after
        all replies that were on their way.
        """
        positions: dict[str, list[int]] = {}
        unpaid: dict[str, JudgeRow] = {}
        unreadable = 0
        cache = ReplyCache(self._folder)
        try:
            for position, row in enumerate(rows):
                if not row.response.strip():
                    yield position, Verdict(None, reason=EMPTY_RESPONSE)
                    continue
                key = self._key(row)
                if (reply := self._known(cache, key)) is not None:
                    cache.trust(self.fingerprint)
                    yield position, self._verdict(reply)
                    continue
                positions.setdefault(key, []).append(position)
                if key not in unpaid:
                    unpaid[key] = row
                    unreadable += cache.get(key) is not None
            if unreadable:
                say(f"{self.name}: asking again about {unreadable} rows: replies without a verdict")
            if unpaid:
                for key, outcome in self._outcomes(unpaid, cache):
                    yield from self._verdicts(outcome, positions[key])
        finally:
            cache.close()

    def _outcomes(self, unpaid: Mapping[str, JudgeRow], cache: ReplyCache) -> Iterator[Arrival]:
        price = self.price
        if self._settings.mode == "batch":
            requests = {key: self.messages(row) for key, row in unpaid.items()}
            yield from run_batch(
                self._settings,
                self._rubric,
                requests,
                self._account(cache, price),
                cache,
                lambda key: self._known(cache, key),
                self.fingerprint,
            )
            return
        yield from self._online(unpaid, cache, price)

    def _online(
        self, unpaid: Mapping[str, JudgeRow], cache: ReplyCache, price: Price | None
    ) -> Iterator[Arrival]:
        """Run the event loop in a thread of its own and hand out what arrives."""
        arrivals: queue.SimpleQueue[Arrival | BaseException | None] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._ask_all(unpaid, cache, price, arrivals))

        def work() -> None:
            try:
                loop.run_until_complete(task)
                arrivals.put(None)
            except BaseException as error:  # handed over to the caller's thread
                arrivals.put(error)
            finally:
                loop.close()

        thread = threading.Thread(target=work, name="judge", daemon=True)
        thread.start()
        try:
            while (arrival := arrivals.get()) is not None:
                if isinstance(arrival, BaseException):
                    raise arrival
                yield arrival
        finally:
            if thread.is_alive() and not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _ask_all(
        self,
        unpaid: Mapping[str, JudgeRow],
        cache: ReplyCache,
        price: Price | None,
        arrivals: "queue.SimpleQueue[Arrival | BaseException | None]",
    ) -> None:
        """So many workers on one queue: memory does not grow with the number of rows."""
        settings, queued = self._settings, iter(unpaid.items())
        first = min(len(unpaid), max(settings.concurrency, FIRST_REQUESTS))
        async with Endpoint(settings, self._rubric) as endpoint:
            patience = None if cache.trusts(self.fingerprint) else first
            asker = Asker(endpoint, self._account(cache, price), settings, patience)

            async def worker() -> None:
                for key, row in queued:
                    if asker.stop:
                        return

                    def commit(outcome: Outcome, uncounted: Usage, key: str = key) -> None:
                        if outcome.kept:
                            cache.put([Paid(key, outcome.reply, uncounted)])
                            cache.trust(self.fingerprint)
                        arrivals.put((key, outcome))

                    await asker.ask(self.messages(row), commit)

            await asyncio.gather(*(worker() for _ in range(settings.concurrency)))
        if asker.stop:
            raise asker.stop

    def _account(self, cache: ReplyCache, price: Price | None) -> Account:
        budget = Budget(self._settings.max_usd, lambda: cache.spent().usd or 0.0)
        return Account(price, self._settings.max_completion_tokens, budget, cache.count)

    def _known(self, cache: ReplyCache, key: str) -> Reply | None:
        """A reply that was paid for and holds a verdict."""
        reply = cache.get(key)
        return None if reply is None or self._verdict(reply).shows_trait is None else reply

    def _key(self, row: JudgeRow) -> str:
        return cache_key(self.fingerprint, row.prompt, row.response)

    def _verdict(self, reply: Reply) -> Verdict:
        return verdict_of(reply, self._rubric, self._settings.min_coherence)

    def _verdicts(
        self, outcome: Outcome, positions: Sequence[int]
    ) -> Iterator[tuple[int, Verdict]]:
        """One reply for all equal rows; the first of them carries the cost."""
        found = self._verdict(outcome.reply)
        for position, usage in zip(
            positions, [outcome.usage, *[Usage()] * (len(positions) - 1)], strict=True
        ):
            yield (
                position,
                Verdict(
                    found.shows_trait,
                    found.reason,
                    found.score,
                    found.raw,
                    usage=usage,
                    transient=found.shows_trait is None,
                ),
            )
