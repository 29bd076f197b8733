"""That something goes on, on stderr: a bar in a terminal, a line every ten seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from undertow.study.sources import say


@contextmanager
def beating(what: Callable[[], str], every: float = 10.0) -> Iterator[None]:
    """Say every few seconds what is running, where no terminal shows a bar."""
    started, ended = time.perf_counter(), threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            say(f"{what()}: running for {time.perf_counter() - started:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    if not sys.stderr.isatty():
        teller.start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def counting(
    what: str, total: int, unit: str, every: float = 10.0
) -> Iterator[Callable[[int], None]]:
    """Around work of `total` units; what it yields is called with how many more are done."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)

    def so_far() -> str:
        return f"{what}, {done} of {total} {unit}s"

    with tqdm(total=total, desc=what, unit=unit, disable=None) as bar, beating(so_far, every):
        yield more
