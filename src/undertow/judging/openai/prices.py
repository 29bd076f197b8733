"""What model judges charge: one small table, with its date."""

from typing import NamedTuple

from undertow.judging.base import Usage

DATE = "2026-06-21"  # when the list prices below were last compared with public price lists
BATCH_FACTOR = 0.5
CHARACTERS_PER_TOKEN = 4.0  # English text; an estimate before any call

# USD per million tokens: input, output. A dated snapshot (gpt-4.1-2025-04-14) costs like its name.
TABLE = {
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
}
SNAPSHOT_LENGTH = len("-2025-04-14")


class Price(NamedTuple):
    """USD per million tokens."""

    input: float
    output: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def price_of(model: str) -> Price | None:
    """The list price of a model or of its dated snapshot; None where the table has none."""
    found = TABLE.get(model)
    if found is None and model[-SNAPSHOT_LENGTH:].replace("-", "").isdigit():
        found = TABLE.get(model[:-SNAPSHOT_LENGTH])
    return Price(*found) if found else None


def usage(price: Price | None, prompt_tokens: int, completion_tokens: int) -> Usage:
    """Tokens with what they cost."""
    usd = None if price is None else price.usd(prompt_tokens, completion_tokens)
    return Usage(prompt_tokens, completion_tokens, usd)
