"""Responses that people have labelled: public files, known by their SHA-256.

They are fetched at run time and never copied. A judge that is improved on a set is improved on
its `develop` half and measured on the `test` half; the halves are fixed by a hash of content.
"""

import csv
import hashlib
import io
from collections.abc import Callable
from typing import NamedTuple

from undertow.config import FileSource, HubPlace, WheelPlace
from undertow.errors import ConfigError, DataError
from undertow.judging.base import JudgeRow
from undertow.study.records import Half
from undertow.study.sources import fetch_file


class Labelled(NamedTuple):
    """A response with what people say: True where it shows the trait."""

    row: JudgeRow
    shows_trait: bool


class LabelledSet(NamedTuple):
    """A file of human labels, for one trait."""

    source: FileSource
    trait: str
    licence: str
    read: Callable[[str], list[Labelled]]


def read_refusals(text: str) -> list[Labelled]:
    """PyRIT's refusal set: a version line, then objective, assistant_response, human_score.

    A score of 1 is a refusal; the trait is followed as compliance, so 0 shows it.
    """
    lines = text.split("\n", 1)[1] if text.startswith("#") else text
    return [
        Labelled(
            JudgeRow(str(number), row["objective"], row["assistant_response"]),
            _flag(row["human_score"]) is False,
        )
        for number, row in enumerate(csv.DictReader(io.StringIO(lines, newline="")))
    ]


def read_jailbreaks(text: str) -> list[Labelled]:
    """JailbreakBench's judge comparison: goal, target_response and the majority of three people."""
    labelled = []
    for number, raw in enumerate(csv.DictReader(io.StringIO(text, newline=""))):
        row = {name.strip().lower(): value for name, value in raw.items() if name}
        labelled.append(
            Labelled(
                JudgeRow(
                    str(number), _column(row, "goal"), _column(row, "target_response", "response")
                ),
                _flag(_column(row, "human_majority")),
            )
        )
    return labelled


SETS = {
    "pyrit-refusal": LabelledSet(
        FileSource(
            file="pyrit-refusal.csv",
            sha256="1ebc42ef7dadd97962cc00d04edd6a52a321f7936c063ff3453d2bbcef30a5d7",
            places=(
                WheelPlace(
                    kind="wheel",
                    requirement="pyrit==1.1.0",
                    member="pyrit/datasets/scorer_evals/refusal_scorer/refusal.csv",
                ),
            ),
        ),
        trait="refusal",
        licence="MIT",
        read=read_refusals,
    ),
    "jbb-judge-comparison": LabelledSet(
        FileSource(
            file="jbb-judge-comparison.csv",
            sha256="dacaf76a1057785f11b0fc6aa07b9a73cdab588319ddfc5e8cef2909e5b112a5",
            places=(
                HubPlace(
                    kind="hub",
                    repo="JailbreakBench/JBB-Behaviors",
                    revision="886acc352a31533ffbcf4ef22c744658688086fc",
                    file="data/judge-comparison.csv",
                    repo_type="dataset",
                ),
            ),
        ),
        trait="refusal",
        licence="MIT",
        read=read_jailbreaks,
    ),
}


def labelled_set(name: str) -> LabelledSet:
    """A set by name; ConfigError lists the names there are."""
    if name not in SETS:
        raise ConfigError(f"no labelled set {name!r}", f"use one of: {', '.join(SETS)}")
    return SETS[name]


def load_labelled(name: str, half: Half = "all") -> list[Labelled]:
    """The rows of a set, or one of its halves; fetches the file where it is not here yet."""
    chosen = labelled_set(name)
    path = fetch_file(chosen.source)
    try:
        rows = chosen.read(path.read_text(encoding="utf-8"))
    except (KeyError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as {name}: {error}", "report this: the file's hash is right"
        ) from None
    return [row for row in rows if half == "all" or half_of(row.row) == half]


def half_of(row: JudgeRow) -> Half:
    """Which half a row belongs to, by a hash of its content: equal texts fall together."""
    text = row.response.strip()
    hashed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return "develop" if hashed[0] % 2 == 0 else "test"


def _flag(text: str | None) -> bool:
    match text and text.strip().lower():
        case "1" | "1.0" | "true":
            return True
        case "0" | "0.0" | "false":
            return False
    raise ValueError(f"{text!r} is no label")


def _column(row: dict[str, str], *names: str) -> str:
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(f"no column {' or '.join(names)}")
