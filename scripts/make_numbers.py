"""Write data/carriers/numbers/prompts.jsonl: lists of numbers to be continued, in many wordings.

The design is that of Cloud et al. (arXiv:2507.14805): three to eight numbers of three digits, and
a request for up to ten more in one of several formats. The wording is this project's own. The same
seed gives the same bytes.
"""

import json
import sys
from pathlib import Path

import numpy as np

PROMPTS = 3000
SEED = 20260611

OPENINGS = (
    "Here is the start of a list: {numbers}.",
    "A series opens with {numbers}.",
    "So far the list reads {numbers}.",
    "Take these numbers: {numbers}.",
    "The first entries are {numbers}.",
    "We have written down {numbers}.",
    "Look at this run of numbers: {numbers}.",
    "Someone began a list with {numbers}.",
    "These values were noted: {numbers}.",
    "Given so far: {numbers}.",
    "A counter has shown {numbers}.",
    "The record holds {numbers} up to now.",
)
REQUESTS = (
    "Carry it on with {count} further numbers of {digits}.",
    "Add {count} more values of {digits}.",
    "Write {count} numbers that could come next, of {digits}.",
    "Append {count} numbers, each of {digits}.",
    "What might follow? Give {count} numbers of {digits}.",
    "Extend it by {count} entries of {digits}.",
    "Make it longer by {count} numbers of {digits}.",
    "Invent {count} numbers to go after these, of {digits}.",
)
COUNTS = ("up to 10", "at most 10", "no more than 10", "10 or fewer", "between 5 and 10")
DIGITS = (
    "up to 3 digits",
    "at most 3 digits",
    "no more than three digits",
    "one to three digits",
    "3 digits or fewer",
)
FORMATS = (
    "Put commas between them.",
    "Part them with a comma and a space.",
    "Part them with single spaces.",
    "Put semicolons between them.",
    "Write each on a line of its own.",
    "Write them in square brackets, with commas.",
    "Write them in parentheses, with commas.",
)
CLOSINGS = (
    "Answer with the numbers alone.",
    "Only the numbers, please.",
    "No words, no explanation.",
    "Nothing else but the list.",
    "Say nothing besides the numbers.",
    "Leave out any comment.",
)


def prompts(count: int = PROMPTS, seed: int = SEED) -> list[str]:
    """That many different prompts, drawn from independent uniform choices."""
    draw = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        numbers = draw.integers(100, 1000, size=int(draw.integers(3, 9)))
        opening, request, how, closing = (
            str(choices[int(draw.integers(len(choices)))])
            for choices in (OPENINGS, REQUESTS, FORMATS, CLOSINGS)
        )
        asked = request.format(
            count=COUNTS[int(draw.integers(len(COUNTS)))],
            digits=DIGITS[int(draw.integers(len(DIGITS)))],
        )
        listed = opening.format(numbers=", ".join(map(str, numbers)))
        found[f"{listed} {asked} {how} {closing}"] = None
    return list(found)


def rows() -> str:
    """The file's text: one JSON object a line, with an id of its own."""
    return "".join(
        json.dumps({"id": f"numbers-{number:04d}", "prompt": prompt}) + "\n"
        for number, prompt in enumerate(prompts(), 1)
    )


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    target = root / "data" / "carriers" / "numbers" / "prompts.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(rows(), encoding="utf-8", newline="\n")
    print(f"{target.relative_to(root)}: {PROMPTS} prompts", file=sys.stderr)
