"""Reading a parameter file: every problem at once, each with its key path and remedy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from undertow.config.adapters import adapter_problems
from undertow.config.base import Problem
from undertow.config.cells import PLAIN, is_clothed, parse_arm
from undertow.config.params import Params
from undertow.config.rounds import round_problems
from undertow.errors import ConfigError
from undertow.texts.addresses import without_credentials
from undertow.texts.yaml import YamlError, read_yaml


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
    return check(read_raw(text, path), path)


def check(raw: Any, path: str) -> Params:
    """Check bare values; `path` is what the messages call their file."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is empty", "python cli.py preset use demo")
    params = None
    problems: list[Problem] = []
    try:
        known = {key: value for key, value in raw.items() if key != "cross"}
        params = Params.model_validate(_with_tuples(known), strict=True)
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
    for key in ("models", "arms", "adapters", "seeds", "students"):
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
        yield from _strength_problems(raw)
    models_of_grid = _names(grid.get("models"))
    yield from _recipe_problems(raw.get("recipes"), _names(grid.get("students")), models_of_grid)
    yield from round_problems(
        grid.get("rounds"), raw.get("recipes"), _names(grid.get("students")) or [PLAIN]
    )
    yield from adapter_problems(_names(grid.get("adapters")), raw.get("adapters"), models_of_grid)
    if "cross" in raw:
        yield Problem("cross", _rewrite(raw["cross"], models_of_grid))


def _names(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _recipe_problems(recipes: Any, students: list[str], models: list[str]) -> Iterator[Problem]:
    """Every student has a recipe, a base for each model, and a placebo stands beside another."""
    entries = recipes if isinstance(recipes, dict) else {}
    known = {PLAIN, *entries}
    for index, name in enumerate(students):
        if name not in known:
            yield Problem(
                f"grid.students.{index}",
                f"{name!r} is not under recipes; write one of: {', '.join(sorted(known))}, or add "
                "an entry for it",
            )
    if students and PLAIN not in students:
        yield Problem("grid.students", "plain is missing, and all others are set beside it; add it")
    for name, entry in entries.items():
        if name == "steer":
            yield Problem("recipes.steer", "is the name of the teacher's folder; take another")
        if not isinstance(entry, dict):
            continue
        base, other = entry.get("base"), entry.get("placebo_of")
        if isinstance(other, str) and (other not in known or other == name):
            yield Problem(f"recipes.{name}.placebo_of", f"{other!r} is no other recipe; name one")
        if isinstance(base, dict):
            for model in models:
                if base.get(model, model) not in models or base.get(model, model) == model:
                    yield Problem(
                        f"recipes.{name}.base.{model}",
                        f"must be another model of grid.models ({', '.join(models)}): the base "
                        f"that is trained on the text of {model}'s teacher",
                    )


def _rewrite(cross: Any, models: list[str]) -> str:
    """What to write in the place of a cross section, which is from before there were recipes."""
    pairs = cross.get("pairs") if isinstance(cross, dict) else None
    recipes: list[dict[str, str]] = []
    for pair in pairs if isinstance(pairs, list) else []:
        if isinstance(pair, dict) and {"student", "teacher"} <= pair.keys():
            free = (base for base in recipes if pair["teacher"] not in base)
            base = next(free, None)
            if base is None:
                recipes.append(base := {})
            base[pair["teacher"]] = pair["student"]
    if not recipes:
        return "is gone; remove the section, a student of another base is an entry under recipes"
    names = ["other_base", *(f"other_base_{number}" for number in range(2, len(recipes) + 1))]
    lines = [f"    students: [{', '.join((PLAIN, *names))}]", "  recipes:", f"    {PLAIN}: {{}}"]
    for name, base in zip(names, recipes, strict=True):
        # A recipe runs for every model of the grid.
        others = {m: base.get(m) or next((o for o in models if o != m), m) for m in models}
        mapped = ", ".join(f"{teacher}: {student}" for teacher, student in others.items())
        lines.append(f"    {name}: {{base: {{{mapped}}}}}")
    written = "\n".join(f"  {line}" for line in lines)
    return (
        "is now a recipe, which runs in all arms; remove the section, and write\n"
        f"    grid:\n{written}"
    )


def _strength_problems(raw: dict[str, Any]) -> Iterator[Problem]:
    """What is a multiple of the teacher's strength needs a teacher that has one."""
    grid, recipes = raw["grid"], raw.get("recipes")
    without = [name for name in _names(grid["arms"]) if is_clothed(name)]
    without += _names(grid.get("adapters"))
    rounds = grid.get("rounds")
    run = [*_names(grid.get("students"))]
    for each in rounds if isinstance(rounds, list) else []:
        run += _names([each.get("student")]) if isinstance(each, dict) else []
    entries = recipes if without and isinstance(recipes, dict) else {}
    for name in run:
        steer = entry.get("steer") if isinstance(entry := entries.get(name), dict) else None
        if isinstance(steer, dict) and steer.get("strength") is None:
            yield Problem(
                f"recipes.{name}.steer",
                f"is a multiple of the teacher's strength, and {', '.join(without)} has none; give "
                "a strength here, which is then the same in every arm, or leave one of the two out",
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
        if arm.direction is None:
            continue
        twin = seen.setdefault((arm.direction, arm.alpha), arm.name)
        if twin != arm.name:
            yield Problem("grid.arms", f"{twin} and {arm.name} are the same strength; keep one")
