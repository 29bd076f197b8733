"""What a run on a cluster shows: a line per node and a bar over cells, or events as JSON."""

import json
import sys
import time
from collections import defaultdict
from typing import TextIO

from tqdm import tqdm

from undertow.study.sources import say


class Progress:
    """Bars on a terminal, lines elsewhere; one JSON object a line on `events` besides."""

    def __init__(self, cells: int, *, events: TextIO | None) -> None:
        self._events = events
        self._bar = tqdm(total=cells, desc="cells", unit="cell", disable=None, smoothing=0)
        self._lines: dict[str, tqdm] = {}  # type: ignore[type-arg]
        self._work: dict[str, dict[int, str]] = defaultdict(dict)

    def event(self, kind: str, **fields: object) -> None:
        """started, finished, failed, lost, joined, left, worker, ended; seconds since the epoch."""
        if self._events is not None:
            line = json.dumps({"event": kind, "time": round(time.time(), 3), **fields})
            print(line, file=self._events, flush=True)

    def tell(self, text: str) -> None:
        if self._bar.disable:
            say(text)
        else:
            tqdm.write(f"undertow: {text}", file=sys.stderr)

    def works(self, node: str, place: int, what: str | None) -> None:
        """What one place of a node does now; None where it waits."""
        work = self._work[node]
        if what is None:
            work.pop(place, None)
        else:
            work[place] = what
        if self._bar.disable:
            if what is not None:
                say(f"{node}: {what}")
            return
        if node not in self._lines:
            self._lines[node] = tqdm(
                total=0, bar_format="{desc}", position=len(self._lines) + 1, leave=False
            )
        self._lines[node].set_description_str(f"{node}: {', '.join(work.values()) or 'waits'}")

    def cell(self) -> None:
        """One more cell has come to its end."""
        self._bar.update()

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._bar.close()
