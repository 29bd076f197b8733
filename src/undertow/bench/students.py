"""bench students: what the size of a group moves in real students, beside what the seed moves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.bench.readouts import answered
from undertow.carrier.filter import training_carrier
from undertow.config import Cell
from undertow.engine.sampling import Sampling
from undertow.errors import ConfigError
from undertow.models.memory import free_memory
from undertow.models.prompts import RenderedPrompt, encode, ends_of, left_padded, render
from undertow.pipeline.lessons import prepared
from undertow.pipeline.loading import Loaded, Shelf
from undertow.readouts.margin import margins
from undertow.student.adapter import student_of
from undertow.student.together import Student, Together, why_alone
from undertow.study.layout import Study
from undertow.study.traits import TraitData

COMPARED = 20  # prompts that plain transformers + PEFT answer too


class _Made(NamedTuple):
    """Margins by prompt of a trained student."""

    adapter: Path
    margins: dict[str, float]

    @property
    def mean(self) -> float:
        return mean(self.margins.values())


def cases(study: Study, model: str, arm: str, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One result per size of groups, and one of the adapters under plain transformers + PEFT.

    The students are those of the arm and of the control, of all seeds of the grid, on the
    carriers that are on disk; each size trains all of them anew, and each is read alone.
    """
    cells = [
        cell
        for cell in study.params.cells()
        if cell.model == model and (cell.arm.name == arm or cell.arm.is_control)
    ]
    steered = [cell for cell in cells if not cell.arm.is_control]
    missing = [
        cell.key
        for cell in cells
        if not (study.layout.stage(cell, "steer") / "carrier.jsonl").exists()
    ]
    if not steered or missing:
        raise ConfigError(
            f"the students of {model}, {arm} have no carriers: {', '.join(missing) or 'no cells'}",
            f"python cli.py run-cells --model {model}, or name another --arm of the grid",
        )
    shelf = Shelf()
    loaded = shelf.load(study, model)
    if (reason := why_alone(loaded.model, study.params.distillation)) is not None:
        raise ConfigError(f"students of {model} are not trained together: {reason}", "")
    with TemporaryDirectory() as folder:
        first: dict[Cell, _Made] = {}
        for size in sizes:
            made = _trained(study, shelf, cells, size, Path(folder) / str(size))
            first = first or made
            yield {
                "case": "students",
                "model": model,
                "arm": arm,
                "group": size,
                **_compared(made, first, steered, sizes[0]),
            }
        yield {
            "case": "plain transformers and PEFT",
            "model": model,
            **_plain(study, loaded, first[steered[0]].adapter),
        }


def _trained(
    study: Study, shelf: Shelf, cells: Sequence[Cell], size: int, folder: Path
) -> dict[Cell, _Made]:
    """Train all students in groups of this size, then read the margins of each alone."""
    students, loaded = [], shelf.load(study, cells[0].model)
    for cell in cells:
        ready = prepared(study, cell, training_carrier(study, cell).rows, shelf)
        teaching = ready.lesson.teaching
        adapter = folder / cell.key.replace("/", "-")
        students.append(Student(teaching, cell.seed, adapter, lambda *_: None))
    trainer = Together(
        loaded.model,
        loaded.tokenizer,
        [(student.teaching, student.seed) for student in students],
        size=size,
    )
    try:
        for _ in trainer.train(students):
            pass
    finally:
        trainer.close()
    return {
        cell: _Made(student.adapter, _margins(study, loaded, student.adapter))
        for cell, student in zip(cells, students, strict=True)
    }


def _margins(study: Study, loaded: Loaded, adapter: Path) -> dict[str, float]:
    trait = TraitData(study.layout, study.params.trait)
    found: dict[str, float] = {}
    with student_of(loaded.model, adapter) as student:
        for part in margins(
            student,
            loaded.tokenizer,
            _prompts(study, loaded.tokenizer),
            trait.trait.openings,
            study.params.runtime.batch_size,
        ):
            found.update(part)
    return found


def _compared(
    made: dict[Cell, _Made], first: dict[Cell, _Made], steered: Sequence[Cell], size: int
) -> dict[str, Any]:
    controls = {cell.seed: cell for cell in made if cell.arm.is_control}

    def shifts(of: dict[Cell, _Made]) -> list[float]:
        return [of[cell].mean - of[controls[cell.seed]].mean for cell in steered]

    now = shifts(made)
    prompts = [
        abs(one.margins[id] - first[cell].margins[id])
        for cell, one in made.items()
        for id in one.margins
    ]
    return {
        "margin_shifts_by_seed": [round(shift, 3) for shift in now],
        "spread_between_seeds": round(stdev(now), 3) if len(now) > 1 else None,
        f"largest_move_of_a_shift_from_groups_of_{size}": round(
            max(abs(a - b) for a, b in zip(now, shifts(first), strict=True)), 4
        ),
        "largest_move_of_a_student_s_mean": round(
            max(abs(one.mean - first[cell].mean) for cell, one in made.items()), 4
        ),
        "mean_move_of_a_prompt_s_margin": round(mean(prompts), 4),
    }


def _plain(study: Study, loaded: Loaded, adapter: Path) -> dict[str, Any]:
    """Greedy answers of one adapter here, and by `generate` of plain transformers with PEFT."""
    model, tokenizer = loaded.model, loaded.tokenizer
    rows = _prompts(study, tokenizer)[:COMPARED]
    new = study.params.evaluation.max_new_tokens
    with student_of(model, adapter) as student:
        ours = answered(student, tokenizer, rows, Sampling(new, 0.0, 1.0, 0), 1, len(rows))
    plain = PeftModel.from_pretrained(model, str(adapter)).eval()
    try:
        theirs = _greedy(plain, model, tokenizer, rows, new)
    finally:
        plain.unload()
        free_memory()
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    # In half precision one rounding turns a tie, and everything behind it is another answer.
    alike = [_common(a, b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "prompts": len(rows),
        "same_answers": sum(same),
        "mean_share_of_an_answer_that_is_the_same": round(mean(alike), 3),
    }


@torch.inference_mode()
def _greedy(
    student: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[RenderedPrompt],
    new: int,
) -> list[str]:
    batch = left_padded(tokenizer, [encode(tokenizer, row.text) for row in rows], model.device)
    drawn = student.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        max_new_tokens=new,
        do_sample=False,
        repetition_penalty=1.0,
        eos_token_id=sorted(ends_of(tokenizer, model).every),
        pad_token_id=tokenizer.pad_token_id,
    )[:, batch.ids.shape[1] :]
    texts: list[str] = tokenizer.batch_decode(
        drawn, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def _common(one: str, other: str) -> float:
    """How much of the longer text both begin with."""
    longest = max(len(one), len(other))
    if not longest:
        return 1.0
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return (min(len(one), len(other)) if same is None else same) / longest


def _prompts(study: Study, tokenizer: PreTrainedTokenizerBase) -> list[RenderedPrompt]:
    prompts = TraitData(study.layout, study.params.trait).evaluation()
    return [
        RenderedPrompt(prompt.id, render(tokenizer, prompt.prompt, study.params.prompting))
        for prompt in prompts[: study.params.evaluation.prompts]
    ]
