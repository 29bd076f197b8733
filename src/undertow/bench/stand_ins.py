"""What a rehearsal has in place of a preset's settings: what this machine, with no network and no
key, can do. Every change is named."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from undertow.config import PLAIN, parse_arm
from undertow.errors import SourceError
from undertow.study.layout import Layout
from undertow.study.sources import fetch_file, local_folder
from undertow.study.traits import TraitData

LOCAL = "UNDERTOW_LOCAL"
OWN_TRAIT = "pessimism"  # its prompts are in the repository
CONTRAST = 48  # that it has of a kind
MOST = {  # of a rehearsal with small shapes, which is about whether, not how fast
    "direction.contrast_prompts": 16,
    "carrier.prompts": 8,
    "carrier.max_new_tokens": 12,
    "evaluation.prompts": 4,
    "evaluation.max_new_tokens": 8,
    "evaluation.benign_prompts": 4,
    "evaluation.overrefusal_prompts": 4,
    "statistics.resamples": 1000,
}


class Asked(NamedTuple):
    """How a rehearsal was asked for.

    arms: of a model at most, with one seed; None: the grid. plain: without students of other
    recipes.
    """

    small: bool
    arms: int | None
    plain: bool
    device: torch.device


@contextmanager
def beside_local(folder: Path, own: Sequence[str] = ()) -> Iterator[None]:
    """Look files up in `folder`, which also shows what UNDERTOW_LOCAL had, but for `own`."""
    before, theirs = os.environ.get(LOCAL), local_folder()
    for path in theirs.iterdir() if theirs else ():
        if path.name not in own and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    os.environ[LOCAL] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(LOCAL)
        if before is not None:
            os.environ[LOCAL] = before


def stand_in(settings: dict[str, Any], asked: Asked, layout: Layout) -> list[str]:
    """Change the settings where that is needed; a line for each key that was changed."""
    lines = {}
    for key, value, why in _changes(settings, asked, layout):  # each sees those before it
        *sections, name = key.split(".")
        section = settings
        for each in sections:
            section = section[each]
        if section.get(name) != value:
            section[name] = value
            lines[key] = f"{key}: {value} ({why})"
    return list(lines.values())


def _changes(
    settings: dict[str, Any], asked: Asked, layout: Layout
) -> Iterator[tuple[str, Any, str]]:
    if asked.arms is not None:
        arms = fewer(settings["grid"]["arms"], asked.arms)
        yield "grid.arms", arms, "--limit"
        yield "grid.seeds", settings["grid"]["seeds"][:1], "--limit"
        for key in ("control_seeds", "random_arms", "random_seeds"):
            yield f"grid.{key}", [], "--limit"
    if asked.plain:
        yield "grid.students", [PLAIN], "--plain"
        yield "grid.rounds", [], "--plain"
        yield "recipes", {PLAIN: {}}, "--plain"
    if asked.small:
        for key, most in MOST.items():
            section, name = key.split(".")
            yield key, min(most, settings[section].get(name, most)), "small shapes"
    if asked.device.type == "cpu":
        for model in settings["models"]:
            yield f"models.{model}.dtype", "float32", "few CPUs are fast with bfloat16"
        yield "distillation.quantization", "none", "nf4 needs CUDA"
    if find_spec("bitsandbytes") is None:
        yield "distillation.quantization", "none", "bitsandbytes is not installed"
    yield "judging.judge", {"kind": "double", "marker": "e"}, "a stand-in: no key, no cost"
    yield "judging.max_unscored", 1.0, "what is said at random need not be read"
    yield "tracking.enabled", False, "a view of the results, made later"
    yield from _prompts(settings, layout)


def fewer(arms: Sequence[str], most: int) -> list[str]:
    """The control, the trait's strongest arm, a random one, then others; in the grid's order."""

    def place(name: str) -> tuple[int, float]:
        arm = parse_arm(name)
        return (0 if arm.is_control else 1, -abs(arm.alpha))

    ordered = sorted((arm for arm in arms if arm.startswith("trait")), key=place)
    random = [arm for arm in arms if arm.startswith("random")]
    kept = [*ordered[:2], *random, *ordered[2:]][: max(most, 2)]
    return [arm for arm in arms if arm in kept]


def _prompts(settings: dict[str, Any], layout: Layout) -> Iterator[tuple[str, Any, str]]:
    """Another trait where the preset's has files that cannot be had here."""
    absent = {}
    for source in TraitData(layout, settings["trait"]).trait.sources:
        try:
            fetch_file(source)
        except SourceError:
            absent[source.role] = source.file
    evaluation = settings["evaluation"]
    over = evaluation.get("overrefusal_prompts", 0)
    if over and absent:
        why = f"{next(reversed(absent.values()))} is not here, nor in UNDERTOW_LOCAL"
        yield "evaluation.benign_prompts", evaluation.get("benign_prompts", 0) + over, why
        yield "evaluation.overrefusal_prompts", 0, why
    needed = [file for role, file in absent.items() if role != "overrefusal"]
    if needed:
        why = f"not here, nor in UNDERTOW_LOCAL: {', '.join(dict.fromkeys(needed))}"
        yield "trait", OWN_TRAIT, why
        count = min(CONTRAST, settings["direction"]["contrast_prompts"])
        yield "direction.contrast_prompts", count, why
