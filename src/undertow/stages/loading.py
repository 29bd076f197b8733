"""A model of the registry, loaded where the parameters say."""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.models import load_model, load_quantized, load_tokenizer, pick_device, resolve
from undertow.study import Meter, Study


class Loaded(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    meter: Meter


def load(study: Study, name: str, *, nf4: bool = False) -> Loaded:
    """Load a model and start counting its costs; ConfigError or SourceError say what to do."""
    spec = study.params.model_spec(name)
    device = pick_device(study.params.runtime.device)
    meter = Meter(str(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    folder = resolve(name, spec)
    read = load_quantized if nf4 else load_model
    return Loaded(read(folder, spec.dtype, device), load_tokenizer(folder), meter)
