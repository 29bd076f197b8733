"""One student, trained with TRL: the model plus a LoRA adapter, on the rows of its carrier."""

import copy
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTTrainer

from undertow.models import processes
from undertow.models.blocks import blocks
from undertow.models.memory import free_memory
from undertow.student.adapter import finish_folder, without_renamings
from undertow.student.below import read_once
from undertow.student.rows import Row
from undertow.student.shift import shifting
from undertow.student.teaching import Teaching
from undertow.student.trained import LossHook, Trained
from undertow.student.trainer import Attempt, build_trainer

# Floating-point operations of a training that takes a minute without compiled blocks.
WORTH_COMPILING = 1e16


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teaching: Teaching,
    seed: int,
    adapter: Path,
    on_loss: LossHook,
    *,
    compiled: bool | None = None,
    watch: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train an adapter and save it, with the tokenizer, in the folder `adapter`.

    It is a fresh one where the teaching names no start. The model is left as it came, without the
    adapter. seed covers adapter init and row order.
    compiled: None compiles the blocks on a GPU where that saves time.
    Where several processes train together, all call this, and the main one saves.
    """
    rows, settings = teaching.rows, teaching.settings
    if compiled is None:
        compiled = _worth_compiling(model, rows, settings.epochs)
    attempt = Attempt(settings.batch_size, 1, compiled=compiled)
    while True:
        with (
            without_renamings(),
            TemporaryDirectory() as scratch,
            _as_it_was(model),
            read_once(model, teaching),
            shifting(model, teaching) as switch,
        ):
            trainer = build_trainer(
                model, tokenizer, teaching, seed, Path(scratch), on_loss, attempt, switch
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
    if processes.is_main():
        # The vocabulary is the base's; to find that out PEFT would ask the hub, and warn offline.
        student.save_pretrained(str(adapter), save_embedding_layers=False)
        if teaching.finish is not None:
            weights = adapter / "adapter_model.safetensors"
            save_file(teaching.finish(load_file(weights)), weights, metadata={"format": "pt"})
        finish_folder(adapter, tokenizer)
    student.unload()
    tokens = sum(len(row["input_ids"]) for row in rows) * settings.epochs
    return Trained(trainer.losses, tokens, seconds)


def _fits(trainer: SFTTrainer) -> bool:
    """Train; False where the device's memory did not suffice."""
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        if processes.count() > 1:
            raise  # the others wait for this one, and cannot be told to start again
        return False
    return True


def _worth_compiling(model: PreTrainedModel, rows: Sequence[Row], epochs: int) -> bool:
    """Compiling the blocks takes 15 s and then saves a third of each step (docs/gpu.md)."""
    tokens = sum(len(row["input_ids"]) for row in rows) * epochs
    return model.device.type == "cuda" and 4 * model.num_parameters() * tokens > WORTH_COMPILING


@contextmanager
def _as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Undo what training changes besides the adapter.

    The trainer aligns the special tokens with the tokenizer, and a GPU trains with attention
    and compiled blocks of its own.
    """
    config, generation = model.config.to_dict(), copy.deepcopy(model.generation_config)
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
