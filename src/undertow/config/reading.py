"""Reading a parameter file: every problem at once, each with its key path and remedy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from undertow.config.cells import ARM, parse_arm
from undertow.config.params import Params
from undertow.errors import ConfigError
from undertow.texts.addresses import without_credentials
from undertow.texts.yaml import YamlError, read_yaml


class Problem(NamedTuple):
    path: str
    text: str


def load(path: Path) -> Params:
    """Read and check a parameter file; ConfigError lists every problem with its remedy."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist",
            "run in the repository root, or: python cli.py preset use demo",
        ) from None
    return parse(text, str(path))


def parse(text: str | bytes, path: str) -> Params:
    """Check the text of a parameter file; `path` is what the messages call it.

    Reads what DVC reads: YAML 1.2, UTF-8, and numbers, texts and switches as they are written,
    because DVC puts them as they are written into commands and paths.
    """
    raw = read_raw(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is empty", "python cli.py preset use demo")
    params = None
    problems: list[Problem] = []
    try:
        params = Params.model_validate(_with_tuples(raw), strict=True)
    except ValidationError as error:
        problems += [_explain(detail) for detail in error.errors()]
    problems += _cross_problems(raw)
    if problems or params is None:
        lines = "\n".join(f"  {problem.path}: {problem.text}" for problem in problems)
        raise ConfigError(
            without_credentials(f"{path} has {len(problems)} problem(s):\n{lines}"),
            "mend these lines; presets/demo.yaml shows a complete file, "
            "python cli.py preset explain describes every key",
        )
    return params


def read_raw(text: str | bytes, path: str) -> Any:
    """The bare values of a parameter file; ConfigError where they cannot be read."""
    try:
        return read_yaml(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} is 0x{error.object[error.start]:02x}"
        raise ConfigError(
            f"{path} is not UTF-8 text: {byte}",
            "save it as UTF-8, or: python cli.py preset use demo",
        ) from None
    except YamlError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise ConfigError(
            f"{path} cannot be read as YAML 1.2:\n{lines}", "mend the lines named above"
        ) from None


def _with_tuples(value: Any) -> Any:
    """Lists as tuples: what is frozen holds tuples, and nothing else is to be converted."""
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


def _explain(detail: Any) -> Problem:
    """One pydantic error as key path plus a sentence that says what to write."""
    path = ".".join(str(part) for part in detail["loc"]) or "(top level)"
    kind, value = detail["type"], detail.get("input")
    match kind:
        case "missing":
            text = "is missing; add this key"
        case "extra_forbidden":
            text = "is not a known key; remove it or correct its spelling"
        case "value_error":
            text = str(detail["ctx"]["error"])
        case "string_pattern_mismatch":
            text = f"{value!r} must match {detail['ctx']['pattern']}"
        case "string_type":
            text = f'{value!r} must be text; put it in quotes: "{value}"'
        case "bool_type":
            text = f"{value!r} must be true or false"
        case "int_type":
            text = f"{value!r} must be a whole number, without quotes and without a point"
        case "float_type":
            text = f"{value!r} must be a number, without quotes"
        case "tuple_type":
            text = f"{value!r} must be a list: [{value}]"
        case _:
            text = f"{detail['msg']}; got {value!r}"
    return Problem(path, text)


def _cross_problems(raw: dict[str, Any]) -> Iterator[Problem]:
    """Checks between keys, on the raw file, so that they are reported beside the typed ones."""
    grid, models = raw.get("grid"), raw.get("models")
    if not isinstance(grid, dict):
        return
    for key in ("models", "arms", "seeds"):
        values = grid.get(key)
        if isinstance(values, list) and len({str(value) for value in values}) < len(values):
            yield Problem(f"grid.{key}", f"{values} names something twice; keep one of each")
    if isinstance(grid.get("models"), list) and isinstance(models, dict):
        for index, name in enumerate(grid["models"]):
            if name not in models:
                known = ", ".join(map(str, models))
                yield Problem(
                    f"grid.models.{index}",
                    f"{name!r} is not under models; write one of: {known}, or add an entry for it",
                )
    if isinstance(grid.get("arms"), list):
        yield from _arm_problems([arm for arm in grid["arms"] if isinstance(arm, str)])
    if isinstance(raw.get("cross"), dict):
        yield from _pair_problems(grid, raw["cross"])


def _pair_problems(grid: dict[str, Any], cross: dict[str, Any]) -> Iterator[Problem]:
    """Cross-model students lean on the grid: its fetched models and its teachers' texts."""
    models, arms, chosen = (
        [str(name) for name in values] if isinstance(values, list) else []
        for values in (grid.get("models"), grid.get("arms"), cross.get("arms"))
    )
    listed = cross.get("pairs")
    pairs = [pair for pair in listed if isinstance(pair, dict)] if isinstance(listed, list) else []
    for index, pair in enumerate(pairs):
        for role in ("student", "teacher"):
            if isinstance(pair.get(role), str) and pair[role] not in models:
                yield Problem(
                    f"cross.pairs.{index}.{role}",
                    f"{pair[role]!r} is not in grid.models; write one of: {', '.join(models)}, "
                    "or add it there",
                )
        if pair.get("student") is not None and pair.get("student") == pair.get("teacher"):
            yield Problem(
                f"cross.pairs.{index}",
                f"student and teacher are both {pair['student']!r}, which the grid runs already; "
                "name two models or remove the pair",
            )
        if pair in pairs[:index]:
            yield Problem(f"cross.pairs.{index}", "is there twice; keep one")
    for index, arm in enumerate(chosen):
        if arm not in arms:
            yield Problem(
                f"cross.arms.{index}",
                f"{arm!r} is not in grid.arms, so no teacher writes its text; write one of: "
                f"{', '.join(arms)}, or add it there",
            )
    if len(set(chosen)) < len(chosen):
        yield Problem("cross.arms", f"{chosen} names something twice; keep one of each")
    controls = [arm for arm in arms if (match := ARM.fullmatch(arm)) and float(match[2]) == 0]
    if pairs and not set(chosen) & set(controls):
        yield Problem(
            "cross.arms",
            "the control arm is missing, and without the student of the unsteered teacher's text "
            f"no shift can be measured; add {next(iter(controls), 'trait_0')}",
        )


def _arm_problems(names: list[str]) -> Iterator[Problem]:
    arms = []
    for name in names:
        try:
            arms.append(parse_arm(name))
        except ValueError:
            continue  # reported by the typed check
    if not any(arm.is_control for arm in arms):
        yield Problem(
            "grid.arms",
            "the control arm is missing, and without it tau cannot be corrected for what "
            "fine-tuning does by itself; add trait_0",
        )
    seen: dict[tuple[str, float], str] = {}
    for arm in arms:
        twin = seen.setdefault((arm.direction, arm.alpha), arm.name)
        if twin != arm.name:
            yield Problem("grid.arms", f"{twin} and {arm.name} are the same strength; keep one")
