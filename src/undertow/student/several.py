"""Saved adapters of several students on one base at the same time, each on its own rows."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from undertow.errors import DataError
from undertow.models.stacked import Additions, stacked
from undertow.study.found import tensors

PREFIX, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@contextmanager
def students_of(
    model: PreTrainedModel, adapters: Sequence[Path | None]
) -> Iterator[PreTrainedModel]:
    """The model with one saved adapter for each equal part of a batch's rows; None is the base.

    The adapters must be of one form, as those of one study are. DataError where one is damaged or
    not of that form. The model itself comes back bare.
    """
    read = [None if folder is None else _read(folder) for folder in adapters]
    known = next((one for one in read if one), {})
    for folder, one in zip(adapters, read, strict=True):
        if one is not None and _shapes(one) != _shapes(known):
            raise DataError(
                f"{folder} is not of the form of the adapters beside it",
                "train all students with the same distillation.lora",
            )
    names = [name.removesuffix(DOWN) for name in known if name.endswith(DOWN)]

    def side(name: str) -> Tensor:
        blank = torch.zeros_like(known[name])
        return torch.stack([blank if one is None else one[name] for one in read])

    added = {name: Additions(side(name + DOWN), side(name + UP)) for name in names}
    with stacked(model, added):
        yield model


def _read(folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors by the layer's name in the model, its scale in B."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    with tensors(folder / "adapter_model.safetensors", "pt") as file:
        found = {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    other = sorted(name for name in found if not name.endswith((DOWN, UP)))
    if other or config.get("use_rslora") or config.get("use_dora") or config.get("rank_pattern"):
        raise DataError(
            f"{folder} is more than a plain LoRA adapter" + (f": {other[0]}" if other else ""),
            "give the command of that student alone",
        )
    scale = config["lora_alpha"] / config["r"]
    return {name: part * scale if name.endswith(UP) else part for name, part in found.items()}


def _shapes(adapter: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: part.shape for name, part in adapter.items()}
