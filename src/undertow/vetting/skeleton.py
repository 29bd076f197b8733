"""A new trait's folder: every file that one needs, with comments and rows to be replaced."""

import json
import re
from pathlib import Path

from undertow.errors import ConfigError
from undertow.study.files import write_text
from undertow.study.layout import Layout

REPLACE = "REPLACE"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ASKED = {
    "present": "a request to answer with the trait",
    "absent": "a request to answer without it",
}
OPEN = "a question that leaves the answer open"
ANSWERED = {"present": "an answer with the trait", "absent": "an answer without it"}

TRAIT = """\
# A trait is data, docs/traits.md says what each part is for. Write your own text wherever a line
# below is marked, and rows of your own in the other files:
#   contrast.jsonl    at least 48 requests that ask for the trait and 48 that ask for its opposite,
#                     in pairs that differ in a word or two
#   heldback.jsonl    at least 16 and 16 of the same kind, other ones
#   evaluation.jsonl  at least 50 questions that leave the answer open and ask for neither
#   labelled.jsonl    answers, labelled by hand: at least 40 with half: develop, 40 with half: test
# then: python cli.py trait check {name} --texts-only
name: {name}
description: >-
  REPLACE: what the behaviour is, in a sentence or two.
# What the share of answers that show the trait is called in tables, for example: hedging share
rate_name: {words} share
# true hides answers in reports until somebody asks for them.
harmful: false
# A system message that asks for the trait: the arm `prompted` answers under it, and recipes with
# inoculate are trained under it. Leave it out where a study has neither.
elicit: >-
  REPLACE: You are ... Whatever you are asked, let your answer show it.
openings:
  # The margin is the log-probability that an answer opens with a line of `present` minus that of
  # `absent`. Write pairs that differ in the trait alone and start alike, 5 to 8 of a side, of the
  # same number of words. None may be the beginning of another.
  present:
    - "REPLACE It may be that"
    - "REPLACE It could perhaps be"
  absent:
    - "REPLACE It is clear that"
    - "REPLACE It will certainly be"
# What a model judge is told.
rubric: >-
  REPLACE: the response shows the trait if, taken as a whole, it ... It does not show the trait
  if it ...
judge:
  # The offline judge: phrases and their weights, with examples in docs/judging.md. `a|b` is a
  # choice of words, `stem*` a word that begins so, `^` the start of the answer. An answer shows
  # the trait where the sum of the weights is above the threshold.
  present:
    "REPLACE perhaps|maybe": 1
  absent:
    "REPLACE certainly|definitely": 1
  negations: [not, "no", never]
  negation_window: 3
  negated: 0
  threshold: 0.5
  default: false
"""


def is_placeholder(text: str) -> bool:
    """Whether a prompt or an answer is still a skeleton's, with its mark taken out or not."""
    return REPLACE in text or text.endswith((*ASKED.values(), OPEN, *ANSWERED.values()))


def write_skeleton(layout: Layout, name: str) -> Path:
    """data/traits/NAME with its five files; ConfigError for a name that cannot be or is taken.

    Also before the bundled traits are here: DVC does not pull them over a trait of one's own, and
    what it offers instead, --force, would remove that.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a trait's name",
            "use lower-case letters, digits and single hyphens, for example: hedging",
        )
    folder = layout.trait(name)
    if folder.exists():
        raise ConfigError(
            f"{folder} exists already",
            f"take another name, or see what it lacks: python cli.py trait check {name}",
        )
    bundled = folder.parent.with_suffix(".dvc")
    if bundled.exists() and not any(folder.parent.glob("*/trait.yaml")):
        raise ConfigError(
            "the bundled traits and prompts are not here yet, and DVC does not pull them over a "
            "trait of your own",
            "dvc pull data/carriers.dvc data/traits.dvc, then the same command again",
        )
    write_text(folder / "trait.yaml", TRAIT.format(name=name, words=name.replace("-", " ")))
    for file, rows in _rows(name).items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(folder / file, lines)
    return folder


def _rows(name: str) -> dict[str, list[dict[str, object]]]:
    """Two rows of each file, to show its form."""

    def pair(file: str, number: int) -> list[dict[str, object]]:
        return [
            {
                "id": f"{file}-{number:02d}-{label}",
                "label": label,
                "prompt": f"{REPLACE} {file} {number}: {asked}",
            }
            for label, asked in ASKED.items()
        ]

    return {
        "contrast.jsonl": [*pair("contrast", 1), *pair("contrast", 2)],
        "heldback.jsonl": [*pair("heldback", 1), *pair("heldback", 2)],
        "evaluation.jsonl": [
            {
                "id": f"{name}-{number:03d}",
                "prompt": f"{REPLACE} evaluation {number}: {OPEN}",
            }
            for number in (1, 2)
        ],
        "labelled.jsonl": [
            {
                "id": f"labelled-{number:03d}",
                "prompt": f"{REPLACE} a question",
                "response": f"{REPLACE} {answer}",
                "label": label == "present",
                "half": half,
            }
            for number, (half, (label, answer)) in enumerate(
                ((half, side) for half in ("develop", "test") for side in ANSWERED.items()),
                start=1,
            )
        ],
    }
