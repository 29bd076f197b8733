"""The adapter as a folder that plain PEFT loads: its settings, how it is saved and put on."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Lora
from undertow.errors import ConfigError, DataError
from undertow.models.blocks import blocks
from undertow.study.found import tensors


def lora_config(lora: Lora) -> LoraConfig:
    """PEFT's settings for ours."""
    modules = lora.target_modules
    below = "|".join(map(str, range(lora.adapted_from)))
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        # PEFT takes layers_to_transform beside a list of names only.
        exclude_modules=rf".*\.layers\.({below})\..*" if below else None,
        task_type="CAUSAL_LM",
    )


def check_adapted(model: PreTrainedModel, lora: Lora) -> None:
    """ConfigError where no block is left for an adapter."""
    deepest = len(blocks(model)) - 1
    if lora.adapted_from > deepest:
        raise ConfigError(
            f"distillation.lora.adapted_from is {lora.adapted_from}, and the model has blocks 0 "
            f"to {deepest}",
            f"use a number from 0, which adapts all of them, to {deepest}",
        )


def finish_folder(adapter: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a folder that PEFT has written the same in every run, and add the tokenizer."""
    (adapter / "README.md").unlink(missing_ok=True)
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # The base's place on this machine means nothing elsewhere; base_name says what does.
    config["base_model_name_or_path"] = None
    # PEFT keeps them in a set, whose order differs from run to run and would change the hash.
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(adapter)


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """A saved adapter's tensors by the names that PEFT saves; DataError where it is damaged."""
    with tensors(folder / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def start_from(student: Any, start: Mapping[str, Tensor]) -> None:
    """Put an adapter's tensors into a model whose own adapter is of the same form.

    Where it is not the model comes back bare.
    """
    try:
        check_form(get_peft_model_state_dict(student, save_embedding_layers=False), start)
    except DataError:
        student.unload()
        raise
    set_peft_model_state_dict(student, dict(start))


def check_form(fresh: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    """DataError where training cannot go on from an adapter that was made with other settings."""
    shapes = [{name: part.shape for name, part in each.items()} for each in (fresh, start)]
    if shapes[0] != shapes[1]:
        raise DataError(
            "the adapter to go on from is not of the form that distillation.lora asks for",
            "train the student before it again, with the same distillation.lora",
        )


@contextmanager
def without_renamings() -> Iterator[None]:
    """PEFT and TRL use names that transformers has changed, and keeps until v6: not the user's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*gradient_checkpointing", FutureWarning)
        yield


@contextmanager
def student_of(model: PreTrainedModel, adapter: Path) -> Iterator[PreTrainedModel]:
    """The model with a saved adapter on, in evaluation mode; the model itself comes back bare.

    What is measured is what was saved, not what was still in memory. On a GPU the adapter's
    products are taken in the model's own type, as autocast took them in training.
    """
    with tensors(adapter / "adapter_model.safetensors", "pt"):
        pass  # PEFT would end in a traceback over a file that was cut off
    with without_renamings():
        student = PeftModel.from_pretrained(
            model, str(adapter), autocast_adapter_dtype=model.device.type != "cuda"
        )
    student.eval()
    adapted: Any = student.get_base_model()
    try:
        yield adapted
    finally:
        student.unload()
