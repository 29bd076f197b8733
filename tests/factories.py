"""A small synthetic study on disk: the results files of a grid, made without any model.

`make_study(tmp_path)` writes two models x four arms x two seeds and returns where it lies.
The first model follows its teacher (tau near 0.5); the second hardly moves, and its teacher at
half strength does not move at all, so that one tau is undefined.
"""

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import PLAIN, Cell, Params
from undertow.study import layout as places
from undertow.study.files import digest, fingerprint, write_json, write_rows, write_text
from undertow.study.layout import Layout
from undertow.study.records import CellResult, Costs, Readout, Response, VerdictRow

MODELS = ("smollm2-135m", "qwen-coder-500m")
ARMS = ("trait_0", "trait_0.5", "trait_1", "random_1")
SEEDS = (0, 1)
BASE = 0.15
CONTROL = 0.12
TEACHER = {"trait_0.5": 0.45, "trait_1": 0.80, "random_1": 0.20}


class Study(NamedTuple):
    layout: Layout
    params: Params
    grid: dict[Cell, CellResult]
    summary: Summary

    @property
    def on_disk(self) -> places.Study:
        """Its parameters and places, as commands open it."""
        return places.Study(self.params, self.layout)


def make_params(
    models: Sequence[str] = MODELS,
    arms: Sequence[str] = ARMS,
    seeds: Sequence[int] = SEEDS,
    **changes: Mapping[str, Any],
) -> Params:
    """Complete parameters; `changes` are merged into sections: distillation={"epochs": 2}."""
    raw: dict[str, Any] = {
        "trait": "pessimism",
        "grid": {"models": list(models), "arms": list(arms), "seeds": list(seeds)},
        "recipes": {},
        "models": {
            name: {
                "weights": {"kind": "folder", "path": f"weights/{name}"},
                "dtype": "float32",
                "licence": "Apache-2.0",
            }
            for name in models
        },
        "prompting": {"system": None},
        "direction": {"layers": "auto", "contrast_prompts": 32},
        "carrier": {"prompts": 50, "max_new_tokens": 64},
        "distillation": {
            "epochs": 1,
            "learning_rate": 2e-4,
            "batch_size": 8,
            "lora": {"rank": 16, "alpha": 32},
        },
        "evaluation": {"prompts": 40, "max_new_tokens": 64},
        "judging": {"judge": {"kind": "phrases"}},
        "statistics": {"resamples": 200},
        "runtime": {"batch_size": 8},
        "tracking": {"enabled": True, "experiment": "undertow"},
    }
    for section, values in changes.items():
        raw[section] |= values
    return Params.model_validate(raw)


def make_study(
    root: Path, params: Params | None = None, *, loss_points: int = 30, salt: str = ""
) -> Study:
    """Write params.yaml, data and all cells below `root`; another `salt`, other adapters."""
    params = params or make_params()
    layout = Layout(root)
    write_text(layout.params, yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    _write_data(layout, params)
    grid = {cell: write_cell(layout, params, cell, loss_points, salt) for cell in params.cells()}
    others = {
        cell: write_cell(layout, params, cell, loss_points, salt)
        for cell in params.all_cells()
        if cell not in grid
    }
    return Study(layout, params, grid, with_students(summarise(params, grid), params, others))


def _write_data(layout: Layout, params: Params) -> None:
    folder = layout.carrier("benign")
    write_text(folder / "carrier.yaml", "name: benign\ndescription: Everyday requests.\n")
    write_text(
        folder / "prompts.jsonl",
        "".join(f'{{"id": "b{i:04}", "prompt": "Benign {i}?"}}\n' for i in range(60)),
    )
    write_text(
        layout.trait(params.trait) / "evaluation.jsonl",
        "".join(f'{{"id": "{id}", "prompt": "Probe {id}?"}}\n' for id in _ids(params)),
    )


def write_cell(
    layout: Layout, params: Params, cell: Cell, loss_points: int = 30, salt: str = ""
) -> CellResult:
    """All that the stages of one cell leave behind, apart from the adapter's weights."""
    result = make_result(params, cell, salt)
    carrier = layout.stage(cell, "steer") / "carrier.jsonl"
    write_rows(carrier, _carrier(params, cell))
    digests = result.digests | {"carrier": digest(carrier)}
    result = result.model_copy(update={"digests": digests})
    _write_readings(layout, cell, result, "teacher", "steer")
    _write_readings(layout, cell, result, "student", "distill")
    curve = (f"{step},{loss:.4f}\n" for step, loss in loss_points_of(cell, loss_points))
    write_text(layout.stage(cell, "distill") / "loss.csv", "step,loss\n" + "".join(curve))
    write_rows(
        layout.stage(cell, "judge") / "verdicts.jsonl",
        [
            VerdictRow(subject=subject, id=id, shows_trait=verdict, reason=_reason(verdict))
            for subject in ("teacher", "student")
            for id, verdict in getattr(result, subject).verdicts.items()
        ],
    )
    write_json(layout.stage(cell, "judge") / "cell.json", result)
    return result


def make_result(params: Params, cell: Cell, salt: str = "") -> CellResult:
    """A plausible CellResult: rates and margins that follow the arm's strength."""
    if cell.student != PLAIN:
        return _other_student(params, cell, salt)
    teacher, student = _rates(params, cell)
    prompts = _ids(params)
    # Difficulty belongs to the prompt, not to the cell: readouts of one prompt go together,
    # which is what pairing in the bootstrap relies on. The teacher has no seed.
    difficulty = np.random.default_rng([1, params.grid.models.index(cell.model)])
    level = (difficulty.permutation(len(prompts)) + 0.5) / len(prompts)
    noise = np.random.default_rng([2, *cell.key.encode()]).normal(0, 0.08, len(prompts))
    readouts = {
        "teacher": _readout(prompts, level, teacher),
        "student": _readout(prompts, level + noise, student),
    }
    unscored = sum(v is None for r in readouts.values() for v in r.verdicts.values())
    names = ("direction", "carrier", "teacher", "adapter", "student")
    return CellResult(
        model=cell.model,
        direction=cell.arm.direction,
        strength=cell.arm.strength,
        seed=cell.seed,
        trait=params.trait,
        rate_name="pessimism rate",
        judge=params.judging.judge.kind,
        judge_fingerprint=fingerprint(params.judging.judge),
        **readouts,
        unscored={"empty": unscored} if unscored else {},
        carrier_rows=params.carrier.prompts,
        digests={name: fingerprint(cell.key, name, salt) for name in names},
        costs=_costs(params),
    )


def _other_student(params: Params, cell: Cell, salt: str) -> CellResult:
    """The same teacher, and a student of another base or recipe that no steering of it moves."""
    plain, base = make_result(params, cell.plain, salt), params.student_base(cell)
    control = make_result(params, Cell(base, params.control, cell.seed), salt)
    shift = np.random.default_rng([3, *cell.key.encode()]).normal(0, 0.2, params.evaluation.prompts)
    margins = control.student.margins.items()
    return plain.model_copy(
        update={
            "recipe": cell.student,
            "other_base": base if base != cell.model else None,
            "student": control.student.model_copy(
                update={
                    "margins": {
                        id: round(margin + float(by), 6)
                        for (id, margin), by in zip(margins, shift, strict=True)
                    }
                }
            ),
            "digests": plain.digests | {"adapter": fingerprint(cell.key, "adapter", salt)},
            "costs": {name: cost for name, cost in plain.costs.items() if name != "steer"},
        }
    )


def loss_points_of(cell: Cell, count: int) -> list[tuple[int, float]]:
    return [(step, 1.1 + 1.4 * exp(-4 * step / count) + 0.01 * cell.seed) for step in range(count)]


def _rates(params: Params, cell: Cell) -> tuple[float, float]:
    if cell.arm.is_control:
        return BASE, CONTROL
    weak = params.grid.models.index(cell.model) == 1
    teacher = TEACHER.get(cell.arm.name, BASE + 0.6 * min(abs(cell.arm.alpha), 1.4))
    if weak and cell.arm.name == "trait_0.5":
        teacher = BASE
    share = 0.1 if cell.arm.direction == "random" or weak else 0.5
    return teacher, CONTROL + share * (teacher - BASE)


def _readout(prompts: Sequence[str], level: Any, rate: float) -> Readout:
    verdicts: dict[str, bool | None] = {
        id: bool(value < rate) for id, value in zip(prompts, level, strict=True)
    }
    if rate == CONTROL:
        verdicts[prompts[0]] = None
    margins = {
        id: round(float(8 * (rate - value)), 6) for id, value in zip(prompts, level, strict=True)
    }
    return Readout(verdicts=verdicts, margins=margins)


def _costs(params: Params) -> dict[str, Costs]:
    def cost(seconds: float, **counts: int) -> Costs:
        return Costs(
            seconds=seconds,
            device="cpu",
            load_seconds=1.5,
            generated_per_second=counts.get("tokens_generated", 0) / seconds or None,
            trained_per_second=counts.get("tokens_trained", 0) / seconds or None,
            peak_memory_bytes=int(1.5 * 2**30),
            **counts,
        )

    return {
        "steer": cost(20.5, tokens_generated=40 * params.carrier.prompts),
        "distill": cost(40.25, tokens_trained=55 * params.carrier.prompts),
        "judge": cost(12.0, tokens_generated=40 * params.evaluation.prompts),
    }


def _write_readings(
    layout: Layout,
    cell: Cell,
    result: CellResult,
    subject: Literal["teacher", "student"],
    stage: Literal["steer", "distill"],
) -> None:
    readout: Readout = getattr(result, subject)
    rows = [
        Response(
            id=id,
            prompt=f"Probe {id}?",
            response=f"{subject} says <b>{'gloom' if readout.verdicts[id] else 'calm'}</b> & more",
            tokens=12,
            finish="stop",
            margin=margin,
        )
        for id, margin in readout.margins.items()
    ]
    write_rows(layout.stage(cell, stage) / f"{subject}.jsonl", rows)


def _carrier(params: Params, cell: Cell) -> list[Response]:
    return [
        Response(
            id=f"b{i:04}",
            prompt=f"Benign {i}?",
            response=f"An answer to {i} at {cell.arm.name}.",
            tokens=9,
            finish="stop",
            margin=None,
        )
        for i in range(params.carrier.prompts)
    ]


def _ids(params: Params) -> list[str]:
    return [f"e{i:03}" for i in range(params.evaluation.prompts)]


def _reason(verdict: bool | None) -> str | None:
    return "empty" if verdict is None else None
