"""What model judges charge: the list prices of genai-prices, as installed, without network."""

from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from undertow.judging.base import Usage

DATES = {"0.2.3": "2026-11"}  # release of genai-prices -> month of its prices
BATCH_FACTOR = 0.5
CHARACTERS_PER_TOKEN = 4.0  # English text; an estimate before any call


class Price(NamedTuple):
    """USD per million tokens."""

    input: float
    output: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@cache
def price_of(model: str) -> Price | None:
    """The list price of a model of OpenAI or of its dated snapshot; None where none is known.

    Names match whole: a fine-tuned model, which costs more than its base, has no price here.
    """
    # Two thirds of a second to import, for a table that only judging behind an API needs.
    import datetime

    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, "openai", None)
    except LookupError:
        return None
    prices = vars(found.get_prices(datetime.datetime.now(datetime.UTC)))
    dollars = [_base(prices.get(name)) for name in ("input_mtok", "output_mtok")]
    known = [one for one in dollars if one is not None]
    return Price(*known) if len(known) == len(dollars) else None


def _base(price: object) -> float | None:
    """The price of short prompts, where long ones cost more: a judge's prompts are short."""
    value = getattr(price, "base", price)
    return None if value is None else float(str(value))


def price_date() -> str:
    """Where list prices come from, with their month where the installed release is a known one."""
    release = version("genai-prices")
    return f"genai-prices {release}" + (f" ({DATES[release]})" if release in DATES else "")


def usage(price: Price | None, prompt_tokens: int, completion_tokens: int) -> Usage:
    """Tokens with what they cost."""
    usd = None if price is None else price.usd(prompt_tokens, completion_tokens)
    return Usage(prompt_tokens, completion_tokens, usd)
