"""The decoder blocks of the families that can be steered."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from undertow.errors import UndertowError


def blocks(model: PreTrainedModel) -> Sequence[Any]:
    """The decoder blocks, first to last."""
    decoder = getattr(model, "model", None)
    layers = getattr(decoder, "layers", None)
    if layers is None or not hasattr(getattr(layers[0], "mlp", None), "down_proj"):
        raise UndertowError(
            f"{type(model).__name__} has no model.layers[i].mlp.down_proj to steer through",
            "use a model of the Llama, Qwen2, Qwen3, Mistral or Gemma families",
        )
    return list(layers)
