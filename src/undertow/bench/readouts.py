"""bench readouts: several students or teachers of one base read in one batch, beside one by one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.bench.cells import TRAIT
from undertow.bench.checkpoints import tokenizer_of_size
from undertow.bench.shapes import build
from undertow.config import Prompting
from undertow.engine.generate import generate, generate_together
from undertow.engine.sampling import Asking, Sampling
from undertow.models.memory import free_memory
from undertow.models.prompts import RenderedPrompt, render
from undertow.readouts.activations import activations_together
from undertow.readouts.margin import margins_together
from undertow.student.adapter import student_of, without_renamings
from undertow.student.several import students_of
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.layout import Layout
from undertow.study.traits import TraitData
from undertow.teacher.several import steer_together
from undertow.teacher.steering import Offsets, steer

RANK = 16
SPREAD = 0.02  # of the random adapters' B
SAMPLED, GREEDY = 1.0, 0.0


class Subject(NamedTuple):
    """A student by its adapter, or a teacher by its offsets."""

    adapter: Path | None = None
    offsets: Offsets | None = None


class _Asked(NamedTuple):
    trait: TraitData
    evaluation: list[RenderedPrompt]
    carrier: list[RenderedPrompt]  # a teacher's


class _Read(NamedTuple):
    seconds: dict[str, float]
    texts: list[str]
    margins: list[float]


def cases(
    root: Path,
    shapes: Sequence[str],
    students: int,
    teachers: int,
    prompts: int,
    carrier: int,
    new: int,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    """One result per shape and kind of subject; weights, adapters and directions are random.

    prompts: of the evaluation, answered greedily and read; carrier: rows that a teacher samples.
    Seconds hold everything from putting the subjects on to taking them off. A first subject, and
    a first group of two, are read before anything is timed: they compile.
    """
    for shape in shapes:
        model = build(shape, device)
        layout = Layout(root)
        tokenizer = tokenizer_of_size(
            CarrierData(layout, HELD_BACK_FROM).file, model.config.vocab_size
        )
        with TemporaryDirectory() as folder:
            kinds = {
                "students": [
                    Subject(adapter=_adapter(model, Path(folder) / str(number), number))
                    for number in range(students)
                ],
                "teachers": [
                    Subject(offsets=_offsets(model, number)) for number in range(teachers)
                ],
            }
            for kind, subjects in kinds.items():
                if not subjects:
                    continue
                rows = _asked(layout, tokenizer, prompts, carrier if kind == "teachers" else 0)
                yield {
                    "case": "readouts",
                    "shape": shape,
                    "subjects": f"{len(subjects)} {kind}",
                    "prompts": prompts,
                    "carrier": len(rows.carrier),
                    "new_tokens": new,
                    **_beside(model, tokenizer, subjects, rows, new),
                }
        del model
        free_memory()


def _beside(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    subjects: list[Subject],
    rows: _Asked,
    new: int,
) -> dict[str, Any]:
    _read(model, tokenizer, subjects[:1], rows, new)
    _read(model, tokenizer, [*subjects, *subjects][:2], rows, new)
    alone = [_read(model, tokenizer, [subject], rows, new) for subject in subjects]
    together = _read(model, tokenizer, subjects, rows, new)
    before = {name: sum(one.seconds[name] for one in alone) for name in together.seconds}
    texts = list(chain.from_iterable(one.texts for one in alone))
    margins = list(chain.from_iterable(one.margins for one in alone))
    same = [a == b for a, b in zip(texts, together.texts, strict=True)]
    moved = [abs(a - b) for a, b in zip(margins, together.margins, strict=True)]
    on_gpu = model.device.type == "cuda"
    return {
        "seconds_one_by_one": {name: round(value, 2) for name, value in before.items()},
        "seconds_together": {name: round(value, 2) for name, value in together.seconds.items()},
        "ratio": round(sum(before.values()) / sum(together.seconds.values()), 2),
        "same_answers": round(sum(same) / len(same), 4),
        "largest_margin_difference": round(max(moved), 4),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def _read(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    subjects: Sequence[Subject],
    rows: _Asked,
    new: int,
) -> _Read:
    """As the stages do: answers of the carrier and the evaluation, margins, activations."""
    count, batch = len(subjects), 256
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def note(what: str) -> None:
        nonlocal started
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds[what] = now - started
        started = now

    free_memory()
    with _put_on(model, subjects):
        note("putting on")
        if rows.carrier:
            answered(model, tokenizer, rows.carrier, Sampling(new, SAMPLED, 1.0, 0), count, batch)
            note("carrier")
        greedy = Sampling(new, GREEDY, 1.0, 0)
        texts = answered(model, tokenizer, rows.evaluation, greedy, count, batch)
        note("answers")
        openings = rows.trait.trait.openings
        values: list[dict[str, float]] = [{} for _ in subjects]
        for part in margins_together(model, tokenizer, rows.evaluation, openings, batch, count):
            for own, found in zip(values, part, strict=True):
                own.update(found)
        note("margins")
        asked = [prompt.prompt for prompt in rows.trait.evaluation()[: len(rows.evaluation)]]
        activations_together(model, tokenizer, asked, Prompting(), batch, count)
        note("activations")
    return _Read(seconds, texts, [own[row.id] for own in values for row in rows.evaluation])


def answered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[RenderedPrompt],
    sampling: Sampling,
    subjects: int,
    batch_size: int,
) -> list[str]:
    """The answers, subject by subject, in the order of rows."""
    found: list[dict[str, str]] = [{} for _ in range(subjects)]
    if subjects == 1:
        for block in generate(model, tokenizer, rows, sampling, batch_size):
            found[0].update({row.id: row.text for row in block.completions})
    else:
        asked = [Asking(sampling)] * subjects
        for shared in generate_together(model, tokenizer, rows, asked, batch_size):
            for own, completions in zip(found, shared.completions, strict=True):
                own.update({row.id: row.text for row in completions})
    return [own[row.id] for own in found for row in rows]


def _put_on(model: PreTrainedModel, subjects: Sequence[Subject]) -> AbstractContextManager[Any]:
    first = subjects[0]
    if first.adapter is not None:
        if len(subjects) == 1:
            return student_of(model, first.adapter)
        return students_of(model, [subject.adapter for subject in subjects])
    if len(subjects) == 1:
        return steer(model, first.offsets or {})
    return steer_together(model, [subject.offsets or {} for subject in subjects])


def _asked(
    layout: Layout, tokenizer: PreTrainedTokenizerBase, prompts: int, carrier: int
) -> _Asked:
    trait = TraitData(layout, TRAIT)

    def rendered(texts: Sequence[Any]) -> list[RenderedPrompt]:
        return [RenderedPrompt(one.id, render(tokenizer, one.prompt, Prompting())) for one in texts]

    return _Asked(
        trait,
        rendered(trait.evaluation()[:prompts]),
        rendered(CarrierData(layout, HELD_BACK_FROM).prompts(carrier)) if carrier else [],
    )


def _adapter(model: PreTrainedModel, folder: Path, seed: int) -> Path:
    """A random adapter on all linear layers; the model itself comes back bare."""
    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    with without_renamings():
        adapted: Any = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=SPREAD)
    adapted.save_pretrained(str(folder))
    adapted.unload()
    model.requires_grad_(False)
    return folder


def _offsets(model: PreTrainedModel, number: int) -> Offsets:
    generator = torch.Generator().manual_seed(number)
    layer = int(model.config.num_hidden_layers) // 2
    return {layer: torch.randn(model.config.hidden_size, generator=generator)}
