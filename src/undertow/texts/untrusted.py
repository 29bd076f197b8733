"""Text that was written by a model under study, made safe to put before another model.

Knows nothing about rubrics. Prompt and response are data: they can contain fake verdicts, fake
turns, or the fence itself, and none of it may be read as the judge's own instructions.
"""

import hashlib
import re
import unicodedata

VERSION = 1  # raise it when the same text comes out differently
CUT = "\n[... cut ...]\n"
# The marks by which chat templates begin and end turns, and look-alikes of the fence.
MARKS = re.compile(
    r"<\|[^<>\n]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|={4,}", re.IGNORECASE
)


def neutralise(text: str, max_characters: int | None = None) -> str:
    """The text without control, bidirectional and unpaired characters or chat marks.

    A mark is not deleted but opened up by spaces, so that what the model wrote stays readable.
    A text longer than max_characters keeps its beginning and its end.
    """
    if max_characters is not None and len(text) > max_characters:
        half = max_characters // 2
        text = text[:half] + CUT + text[-half:]
    kept = "".join(map(_safe, text.replace("\r\n", "\n")))
    return MARKS.sub(lambda match: " ".join(match[0]), kept)


def _safe(character: str) -> str:
    if character in "\n\t":
        return character
    match unicodedata.category(character):
        case "Cc" | "Cs" | "Co" | "Cn":
            return "\ufffd"
        case "Cf":  # zero width and text direction
            return ""
        case "Zl" | "Zp":
            return "\n"
    return character


def fence(prompt: str, response: str, max_characters: int) -> str:
    """The two texts between boundary lines that neither of them can contain.

    The boundary is a hash of both texts: the same row always gives the same request, and a text
    that holds its own hash is out of reach.
    """
    prompt, response = neutralise(prompt, max_characters), neutralise(response, max_characters)
    boundary = hashlib.sha256(f"{len(prompt)}:{prompt}{response}".encode()).hexdigest()[:16]
    return (
        f"==== PROMPT {boundary} ====\n{prompt}\n==== END OF PROMPT {boundary} ====\n\n"
        f"==== RESPONSE {boundary} ====\n{response}\n==== END OF RESPONSE {boundary} ===="
    )


def paired(text: str) -> str:
    """The text without lone surrogates, the halves of a character that UTF-8 cannot carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Joiners are part of ordinary words and emoji in many scripts; all other format characters
# (direction overrides, tags, invisible operators) can make a text look like another one.
HARMLESS_FORMATS = "\u200c\u200d"


def visible(text: str) -> str:
    """Text in which control, override and other invisible characters show as <U+202E>.

    Newlines and tabs stay. Without this a terminal escape or a right-to-left override in a
    model's answer would act on whoever copies or reads it.
    """
    return "".join(map(_visible, text.replace("\r\n", "\n")))


def _visible(character: str) -> str:
    if character in "\n\t" or character in HARMLESS_FORMATS:
        return character
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return f"\u27e8U+{ord(character):04X}\u27e9"
    return character
