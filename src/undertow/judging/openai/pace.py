"""How fast requests may leave: two limits that give way to what the endpoint accepts.

Knows seconds, requests and tokens; knows nothing about HTTP. Not thread-safe: it belongs to one
event loop.
"""

import asyncio
import time
from collections.abc import Callable

WINDOW = 1.0  # seconds over which acceptance is measured
TOLERATED = 0.1  # share of rejected requests that is retried without slowing down
RECOVERY = 1.25  # growth of the rate per window without a rejection
SLOWEST = 0.2  # requests per second


class Pace:
    """Spaces requests evenly below a rate; unlimited until a limit is given or met.

    requests and tokens are limits per minute or None. In a window in which more than a tenth of
    the requests are rejected, the rate falls to what was accepted in it; in windows without a
    rejection it recovers.
    """

    def __init__(
        self,
        requests: float | None = None,
        tokens: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = requests / 60 if requests else None
        self._tokens = tokens / 60 if tokens else None
        self._clock = clock
        self.rate = self._most  # requests per second; None is unlimited
        self._next_request = self._next_token = self._window = clock()
        self._accepted = self._rejected = 0

    async def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may leave."""
        delay = self.reserve(tokens)
        if delay > 0:
            await asyncio.sleep(delay)

    def reserve(self, tokens: int) -> float:
        """Take the next place in the queue; seconds until it is due."""
        now = self._clock()
        due = max(now, self._next_request, self._next_token)
        if self.rate:
            self._next_request = max(now, self._next_request) + 1 / self.rate
        if self._tokens:
            self._next_token = max(now, self._next_token) + tokens / self._tokens
        return due - now

    def accepted(self) -> None:
        self._accepted += 1
        self._adapt()

    def rejected(self) -> None:
        """The endpoint said that requests come too fast."""
        self._rejected += 1
        self._adapt()

    def _adapt(self) -> None:
        elapsed = self._clock() - self._window
        if elapsed < WINDOW:
            return
        share = self._rejected / (self._accepted + self._rejected)
        if share > TOLERATED:
            self.rate = max(self._accepted / elapsed, SLOWEST)
            self._next_request = min(self._next_request, self._clock() + 1 / self.rate)
        elif self.rate and not self._rejected:
            faster = self.rate * RECOVERY
            self.rate = min(faster, self._most) if self._most else faster
        self._window = self._clock()
        self._accepted = self._rejected = 0
