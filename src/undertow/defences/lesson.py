"""What a defence takes and gives."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from undertow.config import Prompting
from undertow.errors import DataError
from undertow.student.teaching import Teaching
from undertow.study.records import Response


@dataclass(frozen=True)
class Lesson:
    """A student's teaching on its way: first as text, then as token ids.

    prompting: how the training rows are rendered, which is not always how anything else is.
    teaching.rows are empty until text and context are settled; then they are the carrier's rows
    that have an answer, in its order.
    """

    carrier: tuple[Response, ...]
    prompting: Prompting
    teaching: Teaching

    def with_carrier(self, rows: Iterable[Response]) -> "Lesson":
        """Other text; DataError where nothing is left of it."""
        carrier = tuple(rows)
        if not carrier:
            raise DataError(
                "the recipe drops every row of the carrier, so there is nothing to train on",
                "give its rows a smaller share, or change: swap",
            )
        return replace(self, carrier=carrier)


def drawn(ids: Collection[str], count: int, seed: int, purpose: str) -> set[str]:
    """`count` of the ids, a matter of seed, purpose and each id alone: arms draw the same."""
    return set(sorted(ids, key=lambda id: place(seed, purpose, id))[:count])


def place(seed: int, purpose: str, id: str) -> bytes:
    """A row's random place in a draw."""
    return hashlib.sha256(f"{purpose}:{seed}:{id}".encode()).digest()


def number(seed: int, purpose: str) -> int:
    """A seed for torch or NumPy that no other purpose has."""
    return int.from_bytes(place(seed, purpose, "")[:4], "little")


def top(values: Sequence[float], count: int, seed: int, purpose: str) -> list[int]:
    """Indices of the `count` largest values; ties are drawn, not taken from the start."""
    order = sorted(
        range(len(values)), key=lambda index: (-values[index], place(seed, purpose, str(index)))
    )
    return order[:count]
