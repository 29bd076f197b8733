"""TRL's SFTTrainer over tokenized rows: the reference of training, and the path of every CPU.

Loss falls on the answer's tokens and its end of turn alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable
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

from undertow.models import processes
from undertow.models.blocks import blocks
from undertow.student import packing
from undertow.student.adapter import lora_config, start_from
from undertow.student.penalties import CorridorPenalty, Predicted, as_base, kl_sum
from undertow.student.rows import IGNORED, Row
from undertow.student.sharding import BlanksLast, blanks
from undertow.student.shift import Switch
from undertow.student.teaching import KlToBase, Teaching
from undertow.student.trained import LossHook


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


def dataset_of(rows: Sequence[Row]) -> Dataset:
    """The rows as TRL takes them, under a name by chance.

    By itself `datasets` names them by a hash of their pickle, where dill writes all of pyarrow out
    if that lies elsewhere than in site-packages (pip's --target), which it cannot. Nothing is
    cached under the name: the rows need no preparation.
    """
    table = InMemoryTable.from_pylist(list(rows))
    return Dataset(table, fingerprint=generate_random_fingerprint())


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teaching: Teaching,
    seed: int,
    scratch: Path,
    on_loss: LossHook,
    attempt: Attempt,
    switch: Switch | None = None,
) -> "AnswerTrainer":
    """A TRL trainer over already tokenized rows, with everything that matters set explicitly.

    attempt.rows is the batch of all processes together: each takes an equal share. switch: of the
    hooks that shift the blocks' outputs, see `shift.shifting`.
    """
    rows, settings = teaching.rows, teaching.settings
    set_seed(seed)
    share = processes.share_of(attempt.rows)
    fill = blanks(rows, settings.batch_size, IGNORED) if processes.count() > 1 else []
    on_gpu = model.device.type == "cuda"
    adamw = "adamw_torch_fused" if on_gpu else "adamw_torch"
    steps_per_epoch = -(-len(rows) // (settings.batch_size * settings.gradient_accumulation))
    trainer = AnswerTrainer(
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
            optim="sgd" if teaching.optimizer == "sgd" else adamw,
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
        train_dataset=dataset_of([*rows, *fill]),
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
    )
    if teaching.start is not None:
        start_from(trainer.model, teaching.start)
    trainer.switch = switch or trainer.switch
    trainer.kl = teaching.kl
    if teaching.corridor is not None:
        trainer.corridor = CorridorPenalty(teaching.corridor, model.device)
    if fill:
        trainer.sampler = BlanksLast(len(rows), len(rows) + len(fill), seed)
    trainer.add_callback(_LossCallback(trainer, on_loss))
    trainer.packed = on_gpu and packing.packs(model)
    if trainer.packed:
        model.set_attn_implementation(packing.ATTENTION)
    if attempt.compiled:
        for block in blocks(model):
            block.compile()
    # Its own printing goes to stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


class AnswerTrainer(SFTTrainer):
    """SFTTrainer whose output layer runs on the answers alone, and on a GPU without padding.

    The same loss as TRL's (mean negative log-likelihood per answer token over the whole batch), and
    the teaching's penalties.
    """

    kl: KlToBase | None = None
    corridor: CorridorPenalty | None = None

    sampler: Sampler[int] | None = None
    """The order of the rows where it is not the trainer's own."""

    packed = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler or super()._get_train_sampler(train_dataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.switch = Switch()
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
        predict = _packed_outputs if self.packed else _padded_outputs
        outputs, targets = predict(model, ids, mask, labels)
        total = cross_entropy(
            outputs.logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
        )
        if self.kl is not None and self.kl.weight:
            with as_base(self.accelerator.unwrap_model(model), self.switch):
                base = predict(model, ids, mask, labels).outputs.logits
            weight = self.kl.at(self.state.global_step, self.state.max_steps)
            total = total + weight * kl_sum(base, outputs.logits, targets)
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        # The Trainer counts the tokens of all processes, and DDP averages their gradients.
        shared = self.accelerator.num_processes if num_items_in_batch is not None else 1
        # Where all that a batch learns is masked there is nothing to divide by.
        loss = total * shared / torch.as_tensor(count).clamp(min=1)
        first = not self.parts  # of a step's parts
        if self.corridor is not None and first and self.corridor.due(self.state.global_step):
            student = self.accelerator.unwrap_model(model)
            loss = loss + self.corridor(model, student, self.switch, predict)
        return (loss, outputs) if return_outputs else loss


def _padded_outputs(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> Predicted:
    """Rows as they are; TRL's tiling over the vocabulary took a third of a step on a CPU."""
    learned = (labels != IGNORED).any(dim=0).nonzero()[:, 0]
    # From the column before the first answer token, which is the one that predicts it; the
    # last column where a process got blanks alone.
    start = int(learned[0]) if len(learned) else labels.shape[1] - 1
    width = labels.shape[1] - start + 1
    outputs = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=width)
    outputs.logits = outputs.logits[:, :-1]
    return Predicted(outputs, labels[:, 1 - width :].flatten())


def _packed_outputs(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> Predicted:
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
    return Predicted(outputs, packed.targets)


class _LossCallback(TrainerCallback):
    """Keeps each step's loss, hands it on, and shows it on a progress bar on stderr."""

    def __init__(self, trainer: AnswerTrainer, on_loss: LossHook) -> None:
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
