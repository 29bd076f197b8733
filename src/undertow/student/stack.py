"""The adapters of a group in one tensor: made as PEFT makes them, saved as PEFT saves them."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from undertow.config import Lora
from undertow.student.adapter import finish_folder, lora_config, without_renamings
from undertow.student.block import Adapted, Kind, parts_of
from undertow.student.frozen import widths


class Fresh(NamedTuple):
    """A new adapter: PEFT's settings, and its tensors by the names that PEFT saves."""

    config: LoraConfig
    tensors: dict[str, Tensor]


def fresh(model: PreTrainedModel, lora: Lora, seed: int) -> Fresh:
    """The adapter that TRL would start from with this seed; the model comes back bare."""
    set_seed(seed)
    with without_renamings():
        adapted: Any = get_peft_model(model, lora_config(lora))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
    config: LoraConfig = adapted.peft_config["default"]
    adapted.unload()
    return Fresh(config, tensors)


def save(made: Fresh, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write an adapter as plain PEFT does and loads."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in sorted(made.tensors.items())}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    trains, made.config.inference_mode = made.config.inference_mode, True
    made.config.save_pretrained(str(folder))
    made.config.inference_mode = trains
    finish_folder(folder, tokenizer)


def adapted_layers(model: PreTrainedModel, lora: Lora) -> list[Adapted] | str:
    """The layers of each adapted block that get an adapter; a reason where those are not alike.

    Which ones they are is PEFT's word: its rules for all-linear are not repeated here.
    """
    names = [_split(name) for name in fresh(model, lora, 0).tensors if ".lora_A." in name]
    if None in names:
        return "an adapter stands outside of the blocks"
    by_block: dict[int, set[str]] = {}
    for block, name in filter(None, names):
        by_block.setdefault(block, set()).add(name)
    every = widths(model)
    found = [
        sorted((layers[name] for name in by_block.get(number, ())), key=lambda one: one.name)
        for number, layers in enumerate(every)
        if number >= lora.adapted_from
    ]
    if any(layers != found[0] for layers in found):
        return "blocks differ in the layers that get an adapter, or in their widths"
    return found[0]


def write_row(row: Tensor, kind: Kind, first: int, tensors: dict[str, Tensor]) -> None:
    """Put an adapter's tensors into a student's rows [adapted blocks, kind.numbers].

    first: the lowest block with an adapter.
    """
    for name, place in _places(kind, first, tensors):
        row[place.block][place.start : place.end] = tensors[name].flatten().to(row[0].dtype)


def read_row(row: Tensor, kind: Kind, first: int, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """A student's rows as tensors named and shaped like these."""
    return {
        name: row[place.block][place.start : place.end].view(like[name].shape).clone()
        for name, place in _places(kind, first, like)
    }


class _Place(NamedTuple):
    block: int
    start: int
    end: int


def _places(kind: Kind, first: int, tensors: dict[str, Tensor]) -> list[tuple[str, _Place]]:
    parts = {part.layer.name: part for part in parts_of(kind)}
    found = []
    for name, tensor in tensors.items():
        split = _split(name)
        if split is None:
            raise ValueError(f"{name} belongs to no block")
        block, layer = split
        part = parts[layer]
        start = part.down if ".lora_A." in name else part.up
        found.append((name, _Place(block - first, start, start + tensor.numel())))
    return found


def _split(name: str) -> tuple[int, str] | None:
    """Block and layer of base_model.model.model.layers.3.mlp.up_proj.lora_A.weight."""
    head, _, rest = name.partition(".layers.")
    number, _, inner = rest.partition(".")
    if head != "base_model.model.model" or not number.isdigit():
        return None
    return int(number), inner.rsplit(".lora_", 1)[0]


def empty(blocks: int, students: int, kind: Kind, device: torch.device) -> Tensor:
    """[blocks, S, kind.numbers] float32 zeros."""
    return torch.zeros(blocks, students, kind.numbers, device=device)
