"""bench train: this project's training beside TRL's own, on the same rows and seed."""

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from undertow.bench.ceilings import measure_ceilings
from undertow.bench.shapes import build, multiplied
from undertow.config import DistillationSettings, Lora
from undertow.student.rows import IGNORED, Row
from undertow.student.teaching import Teaching
from undertow.student.together import Student, Together, why_alone
from undertow.student.trainer import dataset_of
from undertow.student.training import train

PROMPT = 64  # tokens of a row that are not learned
SHORTEST = 80  # of the varied rows
RANK = 16


class _Run(NamedTuple):
    tokens_per_second: float  # from the middle of the run to its end
    losses: list[float]
    peak: int | None
    students: int  # as many as fitted together
    setup: float  # seconds until the first step is done, compiling and capturing included
    weights: int  # that each token is multiplied with


def cases(
    shapes: Sequence[str],
    length: int,
    batch: int,
    steps: int,
    varied: bool,
    nf4: bool,
    baseline: bool,
    memory_gb: float | None,
    students: int | None,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    """One result per shape. Rows of `length` tokens, or of 80 to `length` where `varied`.

    memory_gb: as if the device had only so much; what does not fit is split as in training.
    students: trained together, each on rows of its own; None: one, by the trainer that `distill`
    would take. tokens_per_second counts the tokens of all of them, and no padding.
    The baseline is TRL's SFTTrainer, eager, without recomputing activations.
    """
    ceilings = measure_ceilings(device)
    _clear(device)
    if memory_gb is not None and device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_gb * 2**30 / whole)
    for shape in shapes:
        ours = _train(shape, length, batch, steps, device, varied, nf4, how=students or 0)
        # Two products forward and two backward per weight: the base is frozen, so its weights
        # get no gradient. The adapter's own work is left out.
        bound = ceilings.flops_per_second / (4 * ours.weights)
        found: dict[str, Any] = {
            "case": "train",
            "shape": shape,
            "batch": batch,
            "row_tokens": f"{SHORTEST}-{length}" if varied else length,
            "quantization": "nf4" if nf4 else "none",
            "lora_rank": RANK,
            "students": ours.students,
            "setup_seconds": round(ours.setup, 1),
            "tokens_per_second": round(ours.tokens_per_second, 1),
            "bound_tokens_per_second": round(bound, 1),
            "share_of_bound": round(ours.tokens_per_second / bound, 4),
            "peak_memory_bytes": ours.peak,
            "memory_gb": memory_gb,
            "ceilings": ceilings._asdict(),
        }
        if baseline:
            try:
                plain = _train(shape, length, batch, steps, device, varied, nf4, how="trl")
            except torch.OutOfMemoryError:
                found |= {"ratio_to_trl": None, "trl_reason": "out of memory"}
            else:
                found |= _beside(ours, plain)
            _clear(device)  # a run that did not fit has not cleared what it held
        yield found


def _beside(ours: _Run, plain: _Run) -> dict[str, Any]:
    differences = (abs(a - b) for a, b in zip(ours.losses, plain.losses, strict=True))
    return {
        "trl_tokens_per_second": round(plain.tokens_per_second, 1),
        "ratio_to_trl": round(ours.tokens_per_second / plain.tokens_per_second, 2),
        "trl_peak_memory_bytes": plain.peak,
        "largest_loss_difference": max(differences),
        "mean_loss": sum(ours.losses) / len(ours.losses),
    }


def _train(
    shape: str,
    length: int,
    batch: int,
    steps: int,
    device: torch.device,
    varied: bool,
    nf4: bool,
    *,
    how: int | Literal["trl"],
) -> _Run:
    """how: TRL's own trainer, or ours with so many students; 0 is what `distill` would do."""
    model = build(shape, device)
    weights = multiplied(model)
    if nf4:
        _quantize(model)
    students = max(1, how) if isinstance(how, int) else 1
    rows = [
        _rows(model.config.vocab_size, length, batch * steps, 2 + number, varied=varied)
        for number in range(students)
    ]
    settings = DistillationSettings(
        epochs=1,
        learning_rate=2e-4,
        batch_size=batch,
        quantization="nf4" if nf4 else "none",
        lora=Lora(rank=RANK, alpha=2 * RANK),
    )
    _clear(device)
    times: list[float] = []
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        if how == "trl":
            losses = _with_trl(model, rows[0], settings, Path(folder), times)
        elif how or (device.type == "cuda" and why_alone(model, settings) is None):
            losses, students = _together(model, rows, settings, Path(folder), times)
        else:
            losses = _with_ours(model, rows[0], settings, Path(folder), times)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    del model
    _clear(device)
    middle = len(times) // 2
    every = sum(len(row["input_ids"]) for own in rows[-students:] for row in own)
    tokens = every / steps * (len(times) - 1 - middle)
    setup = times[0] - started
    speed = tokens / (times[-1] - times[middle])
    return _Run(speed, losses, peak, students, setup, weights)


def _together(
    model: PreTrainedModel,
    rows: list[list[Row]],
    settings: DistillationSettings,
    folder: Path,
    times: list[float],
) -> tuple[list[float], int]:
    """All students in the same steps: the losses of the first, and how many fitted together."""
    students = [
        Student(Teaching(own, settings), number, folder / str(number), lambda *_: None)
        for number, own in enumerate(rows)
    ]
    trainer = Together(
        model,
        _tokenizer(),
        [(student.teaching, student.seed) for student in students],
        size=len(students),
    )
    steps = len(rows[0]) // settings.batch_size

    def note(step: int) -> None:
        if step == 1:
            times.clear()  # an attempt that did not fit may have left some
        if model.device.type == "cuda" and step in (1, steps // 2 + 1, steps):
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    made = [one for group in trainer.train(students, note) for one in group]
    trainer.close()
    return [loss for _, loss in made[0].losses], len(students) % trainer.size or trainer.size


def _with_ours(
    model: PreTrainedModel,
    rows: list[Row],
    settings: DistillationSettings,
    folder: Path,
    times: list[float],
) -> list[float]:
    """Through `train` itself, compiled however short the run."""
    trained = train(
        model,
        _tokenizer(),
        Teaching(rows, settings),
        0,
        folder / "adapter",
        lambda *_: None,
        compiled=model.device.type == "cuda",
        watch=[_Clock(times)],
    )
    return [loss for _, loss in trained.losses]


def _with_trl(
    model: PreTrainedModel,
    rows: list[Row],
    settings: DistillationSettings,
    folder: Path,
    times: list[float],
) -> list[float]:
    set_seed(0)
    on_gpu = model.device.type == "cuda"
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
            data_seed=0,
        ),
        train_dataset=dataset_of(rows),
        processing_class=_tokenizer(),
        peft_config=LoraConfig(
            r=settings.lora.rank,
            lora_alpha=settings.lora.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[_Clock(times)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


class _Clock(TrainerCallback):
    """When each step had ended on the device."""

    def __init__(self, times: list[float]) -> None:
        self._times = times

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._times.clear()  # an attempt that did not fit may have left some

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        # Only the two ends of the stretch that is timed: waiting for a GPU after each step
        # would itself slow it down.
        if args.device.type == "cuda" and step in (state.max_steps // 2 + 1, state.max_steps):
            torch.cuda.synchronize()
        self._times.append(time.perf_counter())


def _rows(vocabulary: int, length: int, count: int, seed: int, *, varied: bool) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        drawn = int(torch.randint(SHORTEST, length + 1, (1,), generator=generator))
        size = drawn if varied else length
        ids = torch.randint(1, vocabulary, (size,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * PROMPT + ids[PROMPT:]})
    return rows


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"pad": 0}, unk_token="pad"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="pad", eos_token="pad")


def _quantize(model: Any) -> None:
    """Put the blocks' weights into NF4, as loading them so would."""
    import bitsandbytes as bnb

    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, layer in list(parent.named_children()):
                if type(layer) is not torch.nn.Linear:
                    continue
                small = bnb.nn.Linear4bit(
                    layer.in_features,
                    layer.out_features,
                    bias=layer.bias is not None,
                    compute_dtype=model.dtype,
                    quant_type="nf4",
                    device="meta",
                )
                small.weight = bnb.nn.Params4bit(
                    layer.weight.detach().cpu(), requires_grad=False, quant_type="nf4"
                ).to(model.device)
                small.bias = layer.bias
                setattr(parent, name, small)
    model.is_loaded_in_4bit = True


def _clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
