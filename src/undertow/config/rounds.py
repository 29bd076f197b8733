"""Checks of grid.rounds against the students and recipes beside it, on the raw file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from undertow.config.base import Problem

# Made from what the steered teacher wrote, and a later round learns from somebody else's text.
OF_THE_TEACHERS_TEXT = {
    "rows": "it is for the rows of the steered teacher",
    "tokens": "its tokens are those that steering changes in the teacher's text",
    "remix": "it puts others' answers in the place of the teacher's",
}


def round_problems(rounds: Any, recipes: Any, students: Sequence[str]) -> Iterator[Problem]:
    """Every round has a name and a recipe of its own, and comes after one that is known by then."""
    entries = recipes if isinstance(recipes, dict) else {}
    known = list(students)
    for first in students:
        entry = entries.get(first)
        if isinstance(entry, dict) and entry.get("continued") is True:
            yield Problem(
                f"recipes.{first}.continued",
                "is for a later round: nobody's adapter stands before that of a student of "
                "grid.students; name it under grid.rounds instead",
            )
    for index, entry in enumerate(rounds if isinstance(rounds, list) else []):
        if not isinstance(entry, dict):
            continue  # reported by the typed check
        where, name, after = f"grid.rounds.{index}", entry.get("student"), entry.get("after")
        if not isinstance(name, str) or not isinstance(after, str):
            continue
        if after not in known:
            yield Problem(
                f"{where}.after",
                f"{after!r} is no student before it; write one of: {', '.join(known)}",
            )
        if name in known:
            yield Problem(f"{where}.student", f"{name!r} is taken; give this round another name")
        elif name not in entries:
            yield Problem(
                f"recipes.{name}",
                f"is missing, and grid.rounds names it; add {name}: {{}} for a student that is "
                "made as plain is",
            )
        yield from _recipe_problems(name, entries, after)
        known.append(name)


def _recipe_problems(name: str, entries: Mapping[str, Any], after: str) -> Iterator[Problem]:
    own, before = entries.get(name) or {}, entries.get(after) or {}
    if not isinstance(own, dict) or not isinstance(before, dict):
        return
    if own.get("base") != before.get("base"):
        yield Problem(f"recipes.{name}.base", f"must be that of {after}, which writes its carrier")
    for key, why in OF_THE_TEACHERS_TEXT.items():
        if own.get(key) is not None:
            yield Problem(f"recipes.{name}.{key}", f"is not for a later round: {why}")
