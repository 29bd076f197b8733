"""bench cells: a preset's own cells on a model of a known shape, run as run-cells runs them."""

import csv
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from undertow.bench.checkpoints import write_checkpoint
from undertow.bench.stand_ins import beside_local
from undertow.config import CarrierSettings, Cell, Params, load
from undertow.errors import ConfigError, UndertowError
from undertow.lineage.stages import Node, model_node, recorded
from undertow.models.memory import free_memory
from undertow.pipeline.run_cells import run_cells
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.files import digest
from undertow.study.layout import STAGES, Layout, Stage, Study
from undertow.study.presets import presets
from undertow.study.records import Costs
from undertow.study.results import read_manifest
from undertow.texts.yaml import read_yaml, write_yaml

TRAIT = "pessimism"  # its prompts are in the repository
CONTRAST = 48  # prompts of a kind that this trait has
OVERREFUSAL = "overrefusal.csv"  # a stand-in for the source that this trait has not

Told = Callable[[dict[str, Any]], None]


def cases(
    root: Path,
    shapes: Sequence[str],
    preset: str,
    prompts: int | None,
    device: torch.device,
    tell: Told,
) -> Iterator[dict[str, Any]]:
    """One result per shape: the preset's first two cells, and the cells of its grid from these;
    of several shapes, taken for the models of one grid, their sums besides.

    Weights are random, so hardly an answer ends early and no time depends on what a model says.
    The trait is one whose prompts are at hand, the judge the offline one, and over-refusal
    prompts are held-back ones. prompts: carrier rows, where fewer must do; their speeds stand for
    the rest. Both cells go through the stages one after the other, their students in one group
    where the model is small enough for that, so a cell's seconds are those that its stages took;
    what no stage took is of the model, once. tell: gets a line for each stage as it ends, so that
    a run that is cut off leaves what it has measured.
    """
    found = {shipped.name: shipped.path for shipped in presets(root)}
    if preset not in found:
        raise ConfigError(f"--preset: no preset {preset!r}", f"use one of: {', '.join(found)}")
    results = []
    for shape in shapes:
        with TemporaryDirectory() as folder:
            measured = _measured(root, Path(folder), shape, found[preset], prompts, device, tell)
            results.append({"case": "cells", "shape": shape, "preset": preset, **measured})
            yield results[-1]
        free_memory()
    if len(shapes) > 1:
        yield {
            "case": "grid",
            "shapes": list(shapes),
            "preset": preset,
            **{
                f"{what}_minutes": round(sum(one[f"{what}_seconds"] for one in results) / 60, 2)
                for what in ("one_seed", "preset")
            },
        }


def _measured(
    root: Path,
    folder: Path,
    shape: str,
    preset: Path,
    prompts: int | None,
    device: torch.device,
    tell: Told,
) -> dict[str, Any]:
    benign = CarrierData(Layout(root), HELD_BACK_FROM).file
    blocks = write_checkpoint(folder / "weights", shape, benign, device)
    for shared in ("data/carriers", "dvc.yaml", "src"):
        (folder / shared).parent.mkdir(exist_ok=True)
        (folder / shared).symlink_to((root / shared).resolve())
    settings: dict[str, Any] = read_yaml(preset.read_text(encoding="utf-8"))
    write_trait(root, folder, settings["evaluation"].get("overrefusal_prompts", 0))
    _adapt(settings, shape, folder / "weights", blocks // 2, prompts, device)
    (folder / "params.yaml").write_text(write_yaml(settings), encoding="utf-8")

    study = Study.open(folder)
    started = time.time()

    def ran(node: Node) -> None:
        manifest = recorded(folder, node)
        if manifest is not None:
            line = {"case": "stage", "shape": shape, "stage": node.name}
            tell(line | {"ended_after": round(time.time() - started, 1)} | _split(manifest.costs))

    with beside_local(folder / "local"):
        outcome = run_cells(study, shape, commit=False, ran=ran)
    if outcome.failed:
        raise UndertowError(
            f"bench cells, {shape}: " + "; ".join(outcome.failed.values()),
            "solve that, then give the same command again",
        )
    cells = study.params.cells()
    took = max(_end(study.layout, cell) for cell in cells) - started
    costs = [_costs(study.layout, cell) for cell in cells]
    last = costs[-1]
    next_cell = sum(cost.seconds for cost in last.values())
    once = took - len(cells) * next_cell
    whole = compose(load(preset), last, study.params.carrier, once)
    return {
        "carrier_prompts": study.params.carrier.prompts,
        "first_cell_seconds": round(took - next_cell, 1),  # loading, direction, compilation too
        "next_cell_seconds": round(next_cell, 1),
        "once": _once(study, shape, costs, once),
        "stages": {stage: _split(cost) for stage, cost in last.items()},
        "peak_memory_bytes": max(cost.peak_memory_bytes for by in costs for cost in by.values()),
        **whole,
    }


def compose(
    preset: Params, cell: dict[Stage, Costs], ran: CarrierSettings, once: float
) -> dict[str, Any]:
    """All cells of one of the preset's models at the speeds of a cell that ran.

    ran: the carrier of that cell. once: seconds that a model takes besides its cells. Students of
    other recipes are counted on the model that they have as their base. one_seed: the control and
    the trait's arms at one seed, without random arms and such students.
    """
    written, trained = _by_rows(cell, ran)
    longer = preset.carrier.prompts / ran.prompts - 1
    steer = cell["steer"].seconds + longer * written
    student = cell["distill"].seconds + longer * trained + cell["judge"].seconds
    plain, every = len(preset.cells()), len(preset.all_cells())
    models = len(preset.grid.models)
    arms = sum(arm.direction != "random" for arm in preset.arms)
    seconds = once + (plain * (steer + student) + (every - plain) * student) / models
    return {
        "preset_cell_seconds": round(steer + student, 1),
        "preset_cells_of_a_model": plain // models,
        "preset_student_seconds": round(student, 1),
        "preset_further_students_of_a_model": (every - plain) // models,
        "preset_seconds": round(seconds, 1),
        "one_seed_cells": arms,
        "one_seed_seconds": round(once + arms * (steer + student), 1),
    }


def _adapt(
    settings: dict[str, Any],
    shape: str,
    weights: Path,
    layer: int,
    prompts: int | None,
    device: torch.device,
) -> None:
    """The preset's sizes with a model, a trait and a judge that need nothing from elsewhere."""
    control, steered = settings["grid"]["arms"][:2]
    settings["carrier"]["prompts"] = prompts or settings["carrier"]["prompts"]
    settings["runtime"]["device"] = str(device)
    if device.type == "cpu":
        settings["distillation"]["quantization"] = "none"
    lora = settings["distillation"]["lora"]  # of a preset whose model may be deeper
    lora["adapted_from"] = min(lora.get("adapted_from", 0), layer)
    settings |= {
        "trait": TRAIT,
        "grid": {"models": [shape], "arms": [control, steered], "seeds": [0]},
        "recipes": {},
        "models": {
            shape: {
                "weights": {"kind": "folder", "path": str(weights)},
                "dtype": "bfloat16" if device.type == "cuda" else "float32",
            }
        },
        "judging": {"judge": {"kind": "phrases"}, "max_unscored": 1.0},
        "tracking": {"enabled": False},
    }
    settings["direction"] = {"layers": [layer], "contrast_prompts": CONTRAST}


def write_trait(root: Path, folder: Path, overrefusal: int) -> None:
    """Put the trait below `folder`, with a source of so many over-refusal prompts, which are
    held-back ones, in `folder`/local."""
    at = folder / "data" / "traits" / TRAIT
    shutil.copytree(root / "data" / "traits" / TRAIT, at)
    held = CarrierData(Layout(root), HELD_BACK_FROM)
    (folder / "local").mkdir()
    with (folder / "local" / OVERREFUSAL).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt"])
        rows.writerows([prompt.prompt] for prompt in held.heldback(overrefusal, 0))
    source = {
        "role": "overrefusal",
        "file": OVERREFUSAL,
        "sha256": digest(folder / "local" / OVERREFUSAL),
        "format": "csv",
        "column": "prompt",
        "licence": "as the carrier",
    }
    path = at / "trait.yaml"
    trait = read_yaml(path.read_text(encoding="utf-8")) | {"sources": [source]}
    path.write_text(write_yaml(trait), encoding="utf-8")


def _split(cost: Costs) -> dict[str, Any]:
    """Where a stage's seconds went: answering, training, and all else (margins, likelihoods,
    activations, putting on adapters, files)."""
    written = cost.tokens_generated / (cost.generated_per_second or 1)
    trained = cost.tokens_trained / (cost.trained_per_second or 1)
    return {
        "seconds": cost.seconds,
        "load_seconds": cost.load_seconds,
        "answering_seconds": round(written, 1),
        "training_seconds": round(trained, 1),
        "other_seconds": round(cost.seconds - written - trained, 1),
        "tokens_generated": cost.tokens_generated,
        "generated_per_second": cost.generated_per_second,
        "tokens_trained": cost.tokens_trained,
        "trained_per_second": cost.trained_per_second,
    }


def _once(
    study: Study, model: str, cells: Sequence[dict[Stage, Costs]], whole: float
) -> dict[str, float]:
    """Where the seconds went that a model takes once; first_use: compiling and capturing, as far
    as the first cell took longer than the last, and what no stage took."""
    fetch, direction = (
        manifest.costs
        for stage in ("fetch", "direction")
        if (manifest := recorded(study.layout.root, model_node(study, stage, model)))
    )
    every = [direction, *(cost for cell in cells for cost in cell.values())]
    found = {
        "fetching": fetch.seconds,
        "direction": direction.seconds,
        "loading": sum(cost.load_seconds for cost in every),
    }
    found["first_use"] = whole - sum(found.values())
    return {what: round(seconds, 1) for what, seconds in found.items()}


def _end(layout: Layout, cell: Cell) -> float:
    return (layout.stage(cell, "judge") / "manifest.json").stat().st_mtime


def _costs(layout: Layout, cell: Cell) -> dict[Stage, Costs]:
    return {stage: read_manifest(layout.stage(cell, stage)).costs for stage in STAGES}


def _by_rows(costs: dict[Stage, Costs], carrier: CarrierSettings) -> tuple[float, float]:
    """Seconds of a cell that grow with the carrier: writing it, and training on it."""
    steer, distill = costs["steer"], costs["distill"]
    if not steer.generated_per_second or not distill.trained_per_second:
        raise UndertowError(
            "bench cells: a stage took up what an earlier run had left, so it has no speed",
            "give the same command again",
        )
    written = carrier.prompts * carrier.max_new_tokens / steer.generated_per_second
    return written, distill.tokens_trained / distill.trained_per_second
