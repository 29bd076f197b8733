"""A judge without a model, for tests and dry runs of the whole pipeline."""

import time
from collections.abc import Iterator, Sequence

from undertow.judging.base import JudgeRow, Verdict
from undertow.study.files import fingerprint


class ScriptedJudge:
    """True where `marker` occurs in a response, no verdict for `unscored_marker`, else false.

    seconds_per_row slows it down like a judge behind a network; it changes no verdict.
    """

    name = "double"

    def __init__(
        self, marker: str, unscored_marker: str | None = None, seconds_per_row: float = 0.0
    ) -> None:
        self._marker = marker
        self._unscored_marker = unscored_marker
        self._seconds_per_row = seconds_per_row

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.name, self._marker, self._unscored_marker)

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        for position, row in enumerate(rows):
            yield position, self._verdict(row)

    def _verdict(self, row: JudgeRow) -> Verdict:
        if self._seconds_per_row:
            time.sleep(self._seconds_per_row)
        if self._unscored_marker is not None and self._unscored_marker in row.response:
            return Verdict(None, reason="scripted to have no verdict")
        return Verdict(self._marker in row.response)
