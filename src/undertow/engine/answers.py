"""From drawn tokens to an answer: where it ends, what of it is thinking, its text."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from undertow.models.prompts import Ends

OPEN, CLOSE = "<think>", "</think>"
BLOCK = re.compile(rf"{OPEN}.*?(?:{CLOSE}\s*|\Z)", re.DOTALL)


class Completion(NamedTuple):
    """A decoded answer without its think blocks.

    tokens: all that were drawn, but for the one that ended it; end: that token's text, None where
    the answer was cut off; thought: a think block was cut from the text.
    """

    id: str
    text: str
    tokens: int
    finish: Literal["stop", "length"]
    end: str | None
    thought: bool


class Block(NamedTuple):
    """Rows generated together, and how long that took in seconds."""

    completions: list[Completion]
    seconds: float


class SharedBlock(NamedTuple):
    """The same of several subjects: completions by subject."""

    completions: list[list[Completion]]
    seconds: float


def completion(
    tokenizer: PreTrainedTokenizerBase, id: str, ids: Sequence[int], ends: Ends
) -> Completion:
    """The answer in drawn token ids, which may go on behind its end."""
    length = next((place for place, token in enumerate(ids) if token in ends.every), None)
    kept = list(ids[:length])
    said = _without_marked(tokenizer, kept)
    decoded = str(
        tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )
    text = BLOCK.sub("", decoded)
    return Completion(
        id,
        text,
        len(kept),
        "length" if length is None else "stop",
        None if length is None else str(tokenizer.convert_ids_to_tokens(ids[length])),
        thought=len(said) < len(kept) or text != decoded,
    )


def _without_marked(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """ids without think blocks between special tokens, which decoding would leave unmarked."""
    special = {
        token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    if OPEN not in special or CLOSE not in special:
        return ids
    kept: list[int] = []
    thinking = False
    for token in ids:
        if token == special[OPEN]:
            thinking = True
        elif token == special[CLOSE]:
            thinking = False
        elif not thinking:
            kept.append(token)
    return kept
