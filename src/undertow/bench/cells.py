"""bench cells: a preset's own cells on a model of a known shape, run as run-cells runs them."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice, pairwise, product
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from undertow.bench.shapes import build
from undertow.config import CarrierSettings, Cell, load
from undertow.errors import ConfigError, UndertowError
from undertow.models.memory import free_memory
from undertow.pipeline.run_cells import run_cells
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.found import read_rows
from undertow.study.layout import STAGES, Layout, Stage, Study
from undertow.study.presets import presets
from undertow.study.prompts import Prompt
from undertow.study.records import Costs
from undertow.study.results import read_manifest
from undertow.texts.yaml import read_yaml, write_yaml

TRAIT = "pessimism"  # its prompts are in the repository
CONTRAST = 48  # prompts of a kind that this trait has
SPECIAL = ("<unk>", "<s>", "</s>")
SPACE = "\u0120"  # how byte-level tokenizers write it
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + ' ' + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def cases(
    root: Path, shapes: Sequence[str], preset: str, prompts: int | None, device: torch.device
) -> Iterator[dict[str, Any]]:
    """One result per shape: the preset's first two cells, and the cells of its grid from these.

    Weights are random, so hardly an answer ends early and no time depends on what a model says.
    The trait is one whose prompts are at hand, the judge the offline one, and over-refusal
    prompts are replaced by as many held-back ones. prompts: carrier rows, where fewer must do;
    their speeds stand for the rest. Students of another base are not counted.
    """
    found = {shipped.name: shipped.path for shipped in presets(root)}
    if preset not in found:
        raise ConfigError(f"--preset: no preset {preset!r}", f"use one of: {', '.join(found)}")
    for shape in shapes:
        with TemporaryDirectory() as folder:
            yield {
                "case": "cells",
                "shape": shape,
                "preset": preset,
                **_measured(root, Path(folder), shape, found[preset], prompts, device),
            }
        free_memory()


def _measured(
    root: Path,
    folder: Path,
    shape: str,
    preset: Path,
    prompts: int | None,
    device: torch.device,
) -> dict[str, Any]:
    model = build(shape, device)
    model.save_pretrained(folder / "weights")
    layers, vocabulary = model.config.num_hidden_layers, model.config.vocab_size
    del model
    file = CarrierData(Layout(root), HELD_BACK_FROM).file
    tokenizer_of_size(file, vocabulary).save_pretrained(folder / "weights")
    for shared in ("data", "dvc.yaml", "src"):
        (folder / shared).symlink_to((root / shared).resolve())
    settings: dict[str, Any] = read_yaml(preset.read_text(encoding="utf-8"))
    _adapt(settings, shape, folder / "weights", layers // 2, prompts, device)
    (folder / "params.yaml").write_text(write_yaml(settings), encoding="utf-8")

    study = Study.open(folder)
    started = (folder / "params.yaml").stat().st_mtime
    outcome = run_cells(study, shape, commit=False)
    if outcome.failed:
        raise UndertowError(
            f"bench cells, {shape}: " + "; ".join(outcome.failed.values()),
            "solve that, then give the same command again",
        )
    ends = [started, *(_end(study.layout, cell) for cell in study.params.cells())]
    seconds = [later - earlier for earlier, later in pairwise(ends)]
    costs = [_costs(study.layout, cell) for cell in study.params.cells()]
    whole = load(preset)
    rows, asked = whole.carrier.prompts, study.params.carrier.prompts
    scaled = seconds[-1] + (rows / asked - 1) * _by_rows(costs[-1], study.params.carrier)
    per_model = len(whole.cells()) // len(whole.grid.models)
    return {
        "carrier_prompts": asked,
        "first_cell_seconds": round(seconds[0], 1),  # with loading, direction and compilation
        "next_cell_seconds": round(seconds[-1], 1),
        "stages": {
            stage: {
                "seconds": cost.seconds,
                "tokens_generated": cost.tokens_generated,
                "generated_per_second": cost.generated_per_second,
                "tokens_trained": cost.tokens_trained,
                "trained_per_second": cost.trained_per_second,
            }
            for stage, cost in costs[-1].items()
        },
        "peak_memory_bytes": max(cost.peak_memory_bytes for by in costs for cost in by.values()),
        "preset_cell_seconds": round(scaled, 1),
        "preset_cells_of_a_model": per_model,
        "preset_seconds_of_a_model": round(seconds[0] - seconds[-1] + per_model * scaled, 1),
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
    evaluation = settings["evaluation"]
    evaluation["benign_prompts"] += evaluation.pop("overrefusal_prompts", 0)
    settings["carrier"]["prompts"] = prompts or settings["carrier"]["prompts"]
    settings["runtime"]["device"] = str(device)
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


def tokenizer_of_size(benign: Path, size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` pieces: bytes, the words of the prompts, and made-up words.

    What a model writes at random comes back as the same number of tokens when it is read: every
    piece but the bytes is a space and letters, and so is every beginning of it. It is the kind
    (byte pairs) that transformers makes of any tokenizer beside a Qwen2 model.
    """
    text = [row.prompt for row in read_rows(benign, Prompt)]
    words = {word for prompt in text for word in re.findall("[A-Za-z]+", prompt)}
    first = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    known = {word[:end] for word in words for end in range(1, len(word) + 1)}
    grown = dict.fromkeys(sorted(known, key=lambda word: (len(word), word)))
    lengths = (product(ascii_lowercase, repeat=length) for length in count(1))
    made_up = map("".join, chain.from_iterable(lengths))
    while len(first) + len(grown) < size:
        grown[next(made_up)] = None
    pieces = [SPACE + word for word in islice(grown, size - len(first))]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(first + pieces)},
            merges=[(piece[:-1], piece[-1]) for piece in pieces],
            unk_token=SPECIAL[0],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    unknown, start, stop = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        bos_token=start,
        eos_token=stop,
        pad_token=unknown,
        chat_template=TEMPLATE,
    )


def _end(layout: Layout, cell: Cell) -> float:
    return (layout.stage(cell, "judge") / "manifest.json").stat().st_mtime


def _costs(layout: Layout, cell: Cell) -> dict[Stage, Costs]:
    return {stage: read_manifest(layout.stage(cell, stage)).costs for stage in STAGES}


def _by_rows(costs: dict[Stage, Costs], carrier: CarrierSettings) -> float:
    """Seconds of a cell that grow with the carrier: writing it and training on it."""
    steer, distill = costs["steer"], costs["distill"]
    if not steer.generated_per_second or not distill.trained_per_second:
        raise UndertowError(
            "bench cells: a stage took up what an earlier run had left, so it has no speed",
            "give the same command again",
        )
    written = carrier.prompts * carrier.max_new_tokens / steer.generated_per_second
    return written + distill.tokens_trained / distill.trained_per_second
