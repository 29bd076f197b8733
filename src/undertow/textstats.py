"""Plain statistics of one text: words, repetition, refusals. Pure functions."""

import re
from collections.abc import Iterator

WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}]\w+)*")
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
LIST_MARKER = re.compile(r"^\s*(?:[-*\N{BULLET}]|\d+[.)])\s", re.MULTILINE)
REFUSAL_WITHIN = 200  # characters: a refusal that comes later is a remark within an answer
CANNOT = (
    r"(?:can'?t|cannot|can not|could not|couldn'?t|won'?t|will not|am not able to|'m not able to)"
)
REFUSAL = re.compile(
    rf"\bi {CANNOT} (?:\w+ ){{0,2}}(?:assist|help|provide|fulfil\w*|comply|answer|do that|engage"
    r"|support|create|generate|write|give|share|respond|discuss|offer)\b"
    r"|\bi(?:'m| am) (?:unable|not able|unwilling|not allowed|not permitted|not comfortable)\b"
    r"|\A\W*(?:i(?:'m| am) )?(?:so |very |really )?sorry,? but\b"
    r"|\bi (?:must|have to) (?:respectfully |politely )?(?:decline|refuse)\b"
    r"|\bas an ai\b[^.!?]{0,80}\b(?:cannot|can't|don't|do not|unable|not able)\b"
)


def words(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe is part of a word."""
    return WORD.findall(text.lower())


def ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The runs of n words of a text, in order; none where it has fewer words."""
    found = words(text)
    return (tuple(found[start : start + n]) for start in range(len(found) - n + 1))


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-word runs that stand in it before: 0 is no repetition.

    This is 1 - distinct-n (Li et al., arXiv:1510.03055). 0 for a text of fewer than n words.
    """
    found = list(ngrams(text, n))
    return 1 - len(set(found)) / len(found) if found else 0.0


def refuses(text: str) -> bool:
    """Whether an answer opens by declining, by usual English phrases.

    Looks at the first REFUSAL_WITHIN characters. A list of phrases misses unusual refusals.
    """
    opening = text[:REFUSAL_WITHIN].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return REFUSAL.search(opening) is not None


def sentences(text: str) -> int:
    """Sentence ends, at least 1 in a text with a word."""
    return max(len(SENTENCE_END.findall(text)), 1 if words(text) else 0)


def list_markers(text: str) -> int:
    """Lines that begin like an item of a list."""
    return len(LIST_MARKER.findall(text))
