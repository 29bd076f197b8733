"""The student: the model plus a LoRA adapter trained on the carrier (TRL SFT, PEFT).

Loss falls on the answer's tokens and its end of turn alone. Rows are tokenized here, by the same
renderer as everywhere, so that TRL never has to find the prompt inside a longer tokenization.
"""

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from undertow.config import DistillationSettings, Prompting
from undertow.errors import DataError
from undertow.models import processes
from undertow.models.blocks import blocks
from undertow.models.memory import free_memory
from undertow.models.prompts import encode, end_of_turn, render
from undertow.student import packing
from undertow.student.sharding import BlanksLast, blanks
from undertow.study.records import Response

IGNORED = -100
# Floating-point operations of a training that takes a minute without compiled blocks.
WORTH_COMPILING = 1e16
LossHook = Callable[[int, float, float], None]
"""(step, loss, learning rate) after every optimizer step."""


class Trained(NamedTuple):
    """What training left behind: the adapter is on disk, the losses are nats per token."""

    losses: list[tuple[int, float]]
    tokens: int
    seconds: float


def training_rows(
    tokenizer: PreTrainedTokenizerBase, carrier: Sequence[Response], prompting: Prompting
) -> list[dict[str, list[int]]]:
    """input_ids and labels of each carrier row; labels are -100 on the prompt.

    An answer that was cut off gets no end-of-turn token: teaching one there would teach the
    student to stop in mid-sentence.
    """
    rows = []
    for row in carrier:
        prompt = encode(tokenizer, render(tokenizer, row.prompt, prompting))
        answer = encode(tokenizer, row.response) if row.response else []
        if row.finish == "stop":
            answer.append(end_of_turn(tokenizer))
        if answer:
            ids = prompt + answer
            rows.append({"input_ids": ids, "labels": [IGNORED] * len(prompt) + answer})
    if not rows:
        raise DataError(
            "every answer in the carrier is empty, so there is nothing to train on",
            "look at carrier.jsonl; a smaller strength keeps the teacher coherent",
        )
    return rows


class Attempt(NamedTuple):
    """How a batch goes through the device: in `parts` of `rows` rows."""

    rows: int
    parts: int
    recompute: bool = False  # activations in the backward pass (gradient checkpointing)
    compiled: bool = False

    def smaller(self) -> "Attempt":
        """The next one that needs less memory: smaller parts, then recomputing activations.

        Raises OutOfMemoryError where there is none.
        """
        if self.rows > 1:
            split = next(n for n in range(2, self.rows + 1) if self.rows % n == 0)
            return self._replace(rows=self.rows // split, parts=self.parts * split)
        if self.recompute:
            raise torch.OutOfMemoryError(
                f"training does not fit with {self}; set distillation.quantization: nf4 or a "
                "smaller carrier.max_new_tokens"
            )
        return self._replace(recompute=True)

    def __str__(self) -> str:
        also = ", recomputing activations" if self.recompute else ""
        return f"{self.rows} rows at a time{also}"


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, list[int]]],
    settings: DistillationSettings,
    seed: int,
    adapter: Path,
    on_loss: LossHook,
    *,
    compiled: bool | None = None,
    watch: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train a fresh adapter on `rows` and save it, with the tokenizer, in the folder `adapter`.

    The model is left as it came, without the adapter. seed covers adapter init and row order.
    compiled: None compiles the blocks on a GPU where that saves time.
    Where several processes train together, all call this, and the main one saves.
    """
    if compiled is None:
        compiled = _worth_compiling(model, rows, settings.epochs)
    attempt = Attempt(settings.batch_size, 1, compiled=compiled)
    while True:
        with TemporaryDirectory() as scratch, _as_it_was(model), warnings.catch_warnings():
            # transformers renames gradient_checkpointing; both of its names work until v6.
            warnings.simplefilter("ignore", FutureWarning)
            trainer = build_trainer(
                model, tokenizer, rows, settings, seed, Path(scratch), on_loss, attempt
            )
            for callback in watch:
                trainer.add_callback(callback)
            started = time.perf_counter()
            fitted = _fits(trainer)
            seconds = time.perf_counter() - started
        student = trainer.model
        if not isinstance(student, PeftModel):
            raise TypeError("TRL returned a model without an adapter")
        if fitted:
            break
        student.unload()
        attempt = attempt.smaller()
        del trainer, student
        free_memory()
        print(f"out of memory in training: starting again with {attempt}", file=sys.stderr)
    # The base's place on this machine means nothing elsewhere; the manifest names the model.
    student.peft_config["default"].base_model_name_or_path = None
    if processes.is_main():
        student.save_pretrained(str(adapter))
        (adapter / "README.md").unlink(missing_ok=True)
        _sort_target_modules(adapter / "adapter_config.json")
        tokenizer.save_pretrained(adapter)
    student.unload()
    tokens = sum(len(row["input_ids"]) for row in rows) * settings.epochs
    return Trained(trainer.losses, tokens, seconds)


def _sort_target_modules(path: Path) -> None:
    """PEFT keeps them in a set, whose order differs from run to run and would change the hash."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, list[int]]],
    settings: DistillationSettings,
    seed: int,
    scratch: Path,
    on_loss: LossHook,
    attempt: Attempt,
) -> "_AnswerTrainer":
    """A TRL trainer over already tokenized rows, with everything that matters set explicitly.

    attempt.rows is the batch of all processes together: each takes an equal share.
    """
    set_seed(seed)
    share = processes.share_of(attempt.rows)
    fill = blanks(rows, settings.batch_size, IGNORED) if processes.count() > 1 else []
    on_gpu = model.device.type == "cuda"
    lora = settings.lora
    modules = lora.target_modules
    steps_per_epoch = -(-len(rows) // (settings.batch_size * settings.gradient_accumulation))
    trainer = _AnswerTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(scratch),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=share,
            gradient_accumulation_steps=settings.gradient_accumulation * attempt.parts,
            warmup_steps=int(settings.warmup_ratio * steps_per_epoch * settings.epochs),
            lr_scheduler_type=settings.schedule,
            weight_decay=settings.weight_decay,
            optim="adamw_torch_fused" if on_gpu else "adamw_torch",
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=attempt.recompute,
            bf16=on_gpu and model.dtype == torch.bfloat16,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            seed=seed,
            data_seed=seed,
            # Both wait for the device after every step; losses are kept by the trainer itself.
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            ddp_find_unused_parameters=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([*rows, *fill]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            task_type="CAUSAL_LM",
        ),
    )
    if fill:
        trainer.sampler = BlanksLast(len(rows), len(rows) + len(fill), seed)
    trainer.add_callback(_LossCallback(trainer, on_loss))
    if on_gpu:
        model.set_attn_implementation(packing.ATTENTION)
    if attempt.compiled:
        for block in blocks(model):
            block.compile()
    # Its own printing goes to stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _fits(trainer: SFTTrainer) -> bool:
    """Train; False where the device's memory did not suffice."""
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        if processes.count() > 1:
            raise  # the others wait for this one, and cannot be told to start again
        return False
    return True


def _worth_compiling(
    model: PreTrainedModel, rows: Sequence[dict[str, list[int]]], epochs: int
) -> bool:
    """Compiling the blocks takes 15 s and then saves a third of each step (docs/gpu.md)."""
    tokens = sum(len(row["input_ids"]) for row in rows) * epochs
    return model.device.type == "cuda" and 4 * model.num_parameters() * tokens > WORTH_COMPILING


class _AnswerTrainer(SFTTrainer):
    """SFTTrainer whose output layer runs on the answers alone, and on a GPU without padding.

    The same loss as TRL's (mean negative log-likelihood per answer token over the whole batch).
    """

    sampler: Sampler[int] | None = None
    """The order of the rows where it is not the trainer's own."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler or super()._get_train_sampler(train_dataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parts: list[Tensor] = []  # losses of the parts of the step under way
        self.losses: list[tuple[int, float]] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        step: Any = super().training_step
        loss: Tensor = step(*args, **kwargs)
        self.parts.append(loss.detach())
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
        if ids.device.type == "cuda":
            outputs, targets = _packed_outputs(model, ids, mask, labels)
        else:
            outputs, targets = _padded_outputs(model, ids, mask, labels)
        total = cross_entropy(
            outputs.logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
        )
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        # The Trainer counts the tokens of all processes, and DDP averages their gradients.
        shared = self.accelerator.num_processes if num_items_in_batch is not None else 1
        loss = total * shared / count
        return (loss, outputs) if return_outputs else loss


class _Predicted(NamedTuple):
    """outputs.logits: [rows, columns, vocabulary]; targets: [rows x columns]."""

    outputs: Any
    targets: Tensor


def _padded_outputs(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> _Predicted:
    """Rows as they are; TRL's tiling over the vocabulary took a third of a step on a CPU."""
    learned = (labels != IGNORED).any(dim=0).nonzero()[:, 0]
    # From the column before the first answer token, which is the one that predicts it; the
    # last column where a process got blanks alone.
    start = int(learned[0]) if len(learned) else labels.shape[1] - 1
    width = labels.shape[1] - start + 1
    outputs = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=width)
    outputs.logits = outputs.logits[:, :-1]
    return _Predicted(outputs, labels[:, 1 - width :].flatten())


def _packed_outputs(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> _Predicted:
    """All rows in one sequence, see `packing`."""
    packed = packing.pack(ids, mask, labels, IGNORED)
    outputs = model(
        input_ids=packed.ids,
        position_ids=packed.positions,
        use_cache=False,
        logits_to_keep=packed.predictors,
        bounds=packed.bounds,
        longest=packed.longest,
    )
    return _Predicted(outputs, packed.targets)


class _LossCallback(TrainerCallback):
    """Keeps each step's loss, hands it on, and shows it on a progress bar on stderr."""

    def __init__(self, trainer: _AnswerTrainer, on_loss: LossHook) -> None:
        self._trainer = trainer
        self._on_loss = on_loss
        self._waiting: list[tuple[Tensor, float]] = []
        # Reading a loss waits for a GPU, which then stands still until the next step reaches it.
        self._every = 10 if trainer.args.device.type == "cuda" else 1
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if processes.is_main():
            self._bar = tqdm(total=state.max_steps, desc="distill", unit="step", disable=None)

    def on_step_end(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any
    ) -> None:
        loss = torch.stack(self._trainer.parts).sum()
        self._trainer.parts.clear()
        self._waiting.append((loss, float(lr_scheduler.get_last_lr()[0])))
        if len(self._waiting) == self._every:
            self._hand_on()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._hand_on()
        if self._bar is not None:
            self._bar.close()

    def _hand_on(self) -> None:
        if not self._waiting:
            return
        losses, rates = zip(*self._waiting, strict=True)
        self._waiting = []
        # Each process has seen its share of the rows.
        shared = self._trainer.accelerator.gather(torch.stack(losses)[None])
        for loss, rate in zip(shared.mean(0).tolist(), rates, strict=True):
            step = len(self._trainer.losses) + 1
            self._trainer.losses.append((step, loss))
            if processes.is_main():
                self._on_loss(step, loss, rate)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update(len(losses))


@contextlib.contextmanager
def _as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Undo what training changes besides the adapter.

    The trainer aligns the special tokens with the tokenizer, and a GPU trains with attention
    and compiled blocks of its own.
    """
    config, generation = model.config.to_dict(), model.generation_config
    embeddings: Any = model.get_input_embeddings()
    hooks = dict(embeddings._forward_hooks)
    forward = model.__dict__.get("forward")
    attention = model.config._attn_implementation
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    try:
        yield
    finally:
        for key in keys:
            setattr(model.config, key, config.get(key))
        model.generation_config = generation
        # TRL puts its own forward over the model's, and recomputing leaves hooks behind.
        if forward is None:
            model.__dict__.pop("forward", None)
        else:
            model.__dict__["forward"] = forward
        embeddings._forward_hooks.clear()
        embeddings._forward_hooks.update(hooks)
        if model.is_gradient_checkpointing:
            model.gradient_checkpointing_disable()
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        for block in blocks(model):
            block._compiled_call_impl = None


@contextlib.contextmanager
def student_of(model: PreTrainedModel, adapter: Path) -> Iterator[PreTrainedModel]:
    """The model with a saved adapter on, in evaluation mode; the model itself comes back bare.

    What is measured is what was saved, not what was still in memory. On a GPU the adapter's
    products are taken in the model's own type, as autocast took them in training.
    """
    student = PeftModel.from_pretrained(
        model, str(adapter), autocast_adapter_dtype=model.device.type != "cuda"
    )
    student.eval()
    adapted: Any = student.get_base_model()
    try:
        yield adapted
    finally:
        student.unload()
