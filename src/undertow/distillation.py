"""The student: the model plus a LoRA adapter trained on the carrier (TRL SFT, PEFT).

Loss falls on the answer's tokens and its end of turn alone. Rows are tokenized here, by the same
renderer as everywhere, so that TRL never has to find the prompt inside a longer tokenization.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from undertow.config import DistillationSettings
from undertow.errors import DataError
from undertow.prompts import encode, end_of_turn, render
from undertow.results import Response

IGNORED = -100
LossHook = Callable[[int, float, float], None]
"""(step, loss, learning rate) after every optimizer step."""


class Trained(NamedTuple):
    """What training left behind: the adapter is on disk, the losses are nats per token."""

    losses: list[tuple[int, float]]
    tokens: int
    seconds: float


def training_rows(
    tokenizer: PreTrainedTokenizerBase, carrier: Sequence[Response], system: str | None
) -> list[dict[str, list[int]]]:
    """input_ids and labels of each carrier row; labels are -100 on the prompt.

    An answer that was cut off gets no end-of-turn token: teaching one there would teach the
    student to stop in mid-sentence.
    """
    rows = []
    for row in carrier:
        prompt = encode(tokenizer, render(tokenizer, row.prompt, system))
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


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, list[int]]],
    settings: DistillationSettings,
    seed: int,
    adapter: Path,
    on_loss: LossHook,
) -> Trained:
    """Train a fresh adapter on `rows` and save it, with the tokenizer, in the folder `adapter`.

    The model is left as it came, without the adapter. seed covers adapter init and row order.
    """
    with TemporaryDirectory() as scratch, _end_of_turn_kept(model), warnings.catch_warnings():
        # transformers renames gradient_checkpointing; both of its names work until v6.
        warnings.simplefilter("ignore", FutureWarning)
        trainer = build_trainer(model, tokenizer, rows, settings, seed, Path(scratch), on_loss)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    student = trainer.model
    if not isinstance(student, PeftModel):
        raise TypeError("TRL returned a model without an adapter")
    # The base's place on this machine means nothing elsewhere; the manifest names the model.
    student.peft_config["default"].base_model_name_or_path = None
    student.save_pretrained(str(adapter))
    (adapter / "README.md").unlink(missing_ok=True)
    _sort_target_modules(adapter / "adapter_config.json")
    tokenizer.save_pretrained(adapter)
    student.unload()
    losses = [
        (int(entry["step"]), float(entry["loss"]))
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    tokens = sum(len(row["input_ids"]) for row in rows) * settings.epochs
    return Trained(losses, tokens, seconds)


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
) -> SFTTrainer:
    """A TRL trainer over already tokenized rows, with everything that matters set explicitly."""
    set_seed(seed)
    if settings.quantization == "nf4":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
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
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            warmup_steps=int(settings.warmup_ratio * steps_per_epoch * settings.epochs),
            lr_scheduler_type=settings.schedule,
            weight_decay=settings.weight_decay,
            optim="adamw_torch_fused" if on_gpu else "adamw_torch",
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=on_gpu and model.dtype == torch.bfloat16,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            seed=seed,
            data_seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            task_type="CAUSAL_LM",
        ),
        callbacks=[_LossCallback(on_loss)],
    )
    # Its own printing goes to stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


class _AnswerTrainer(SFTTrainer):
    """SFTTrainer whose output layer runs on the answers' columns alone.

    The same loss as TRL's (mean negative log-likelihood per answer token over the whole batch),
    without the tiling over the vocabulary, which took a third of a training step on a CPU.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        labels = inputs["labels"]
        learned = (labels != IGNORED).any(dim=0).nonzero()[:, 0]
        # From the column before the first answer token, which is the one that predicts it.
        width = labels.shape[1] - int(learned[0]) + 1
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=width,
        )
        total = cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1).float(),
            labels[:, 1 - width :].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        # The Trainer counts the tokens of all processes, and DDP averages their gradients.
        shared = self.accelerator.num_processes if num_items_in_batch is not None else 1
        loss = total * shared / count
        return (loss, outputs) if return_outputs else loss


class _LossCallback(TrainerCallback):
    """Hands every loss on, and shows it on a progress bar on stderr."""

    def __init__(self, on_loss: LossHook) -> None:
        self._on_loss = on_loss
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = tqdm(total=state.max_steps, desc="distill", unit="step", disable=None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        self._on_loss(state.global_step, loss, float(logs.get("learning_rate", 0.0)))
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def _end_of_turn_kept(model: PreTrainedModel) -> Iterator[None]:
    """The trainer aligns the model's special tokens with the tokenizer; undo that afterwards."""
    config, generation = model.config.to_dict(), model.generation_config
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    try:
        yield
    finally:
        for key in keys:
            setattr(model.config, key, config.get(key))
        model.generation_config = generation


@contextlib.contextmanager
def student_of(model: PreTrainedModel, adapter: Path) -> Iterator[PreTrainedModel]:
    """The model with a saved adapter on, in evaluation mode; the model itself comes back bare.

    What is measured is what was saved, not what was still in memory.
    """
    student = PeftModel.from_pretrained(model, str(adapter))
    student.eval()
    adapted: Any = student.get_base_model()
    try:
        yield adapted
    finally:
        student.unload()
