"""YAML as DVC reads it: version 1.2, by DVC's own parser, and no key twice.

YAML 1.1 reads 010 as 8, 1:30 as 90 and yes as true; a file that two parsers read differently
would be two configurations. Knows strings alone, and nothing about what the files mean.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

SHORT = 50_000  # characters of a text whose value is kept


class YamlError(ValueError):
    """A text that is not YAML 1.2, or that says something twice; `problems` has a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_yaml(text: str) -> Any:
    """The value of a YAML text; None for an empty one. YamlError names every line at fault.

    Reading takes 15 ms for a hundred lines, so the value of a short text is kept.
    """
    try:
        return deepcopy(_kept(text)) if len(text) <= SHORT else _read(text)
    except RecursionError:
        raise YamlError(["nests too deeply to be read"]) from None


def _read(text: str) -> Any:
    try:
        value = YAML(typ="safe").load(text)
    except DuplicateKeyError:
        raise YamlError(list(_twice(YAML(typ="safe").compose(text), ""))) from None
    except MarkedYAMLError as error:
        raise YamlError([_located(error)]) from None
    except (YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise YamlError([str(error).split("\n", 1)[0]]) from None
    if _holds_itself(value, set(), set()):
        raise YamlError(["an alias stands inside of what it names, so it has no end"])
    return value


_kept = lru_cache(maxsize=8)(_read)


def write_yaml(value: Any) -> str:
    """Block style, keys in their order; `read_yaml` gives the same value back."""
    emitter = YAML()
    emitter.width = 100
    stream = StringIO()
    emitter.dump(value, stream)
    return stream.getvalue()


def _holds_itself(value: Any, above: set[int], sound: set[int]) -> bool:
    """Whether a value is reached again from inside of it; `sound` keeps what was looked through."""
    if not isinstance(value, dict | list) or id(value) in sound:
        return False
    if id(value) in above:
        return True
    above.add(id(value))
    held = value.values() if isinstance(value, dict) else value
    if any(_holds_itself(item, above, sound) for item in held):
        return True
    above.remove(id(value))
    sound.add(id(value))
    return False


def _located(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    parts = [part for part in (error.context, error.problem) if part]
    return where + (", ".join(parts) or "cannot be read")


def _twice(node: Node | None, path: str) -> Iterator[str]:
    """Every key that a mapping of the document holds twice, with both lines."""
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _twice(item, f"{path}{index}.")
    elif isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if first.setdefault(name, line) != line:
                yield f"{path}{name} stands on line {first[name]} and again on line {line}"
            yield from _twice(value, f"{path}{name}.")
