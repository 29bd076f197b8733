"""How long a stage waits for a tracking server: calls that drag share one allowance.

A server that answers in milliseconds may be asked as often as there is something to say. One that
takes seconds for each of a thousand calls would hold a stage for an hour, so what calls take
beyond `GRACE` is counted, and once `ALLOWED` is spent the server is not asked again.
"""

import time
from collections.abc import Callable
from typing import Any

GRACE = 0.5
ALLOWED = 15.0


class TooSlowError(TimeoutError):
    """The allowance is spent; what is missing can be written later."""


class Patience:
    """The allowance of one process for one server, in seconds."""

    def __init__(self, allowed: float = ALLOWED) -> None:
        self._allowed = allowed
        self._spent = 0.0

    def check(self) -> None:
        """Raise TooSlowError where nothing is left."""
        if self._spent > self._allowed:
            raise TooSlowError(f"it is too slow: calls hung for {self._spent:.0f} s")

    def spend(self, seconds: float) -> None:
        self._spent += max(0.0, seconds - GRACE)


class TimedClient:
    """An MLflow client whose calls use up a patience, and are refused once it is gone."""

    def __init__(self, client: Any, patience: Patience) -> None:
        self._client = client
        self._patience = patience

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            self._patience.check()
            started = time.monotonic()
            try:
                return method(*arguments, **named)
            finally:
                self._patience.spend(time.monotonic() - started)

        return timed
