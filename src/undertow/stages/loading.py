"""A model of the registry, loaded where the parameters say."""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.errors import ConfigError
from undertow.models import load_model, load_tokenizer, pick_device, resolve
from undertow.study import Meter, Study


class Loaded(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    meter: Meter


def load(study: Study, name: str) -> Loaded:
    """Load a model and start counting its costs; ConfigError or SourceError say what to do."""
    spec = study.params.model_spec(name)
    device = pick_device(study.params.runtime.device)
    meter = Meter(str(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    folder = resolve(name, spec)
    return Loaded(load_model(folder, spec.dtype, device), load_tokenizer(folder), meter)


def load_quantized(study: Study, name: str) -> Loaded:
    """Load a model in 4-bit NF4 for QLoRA training (bitsandbytes, CUDA)."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    spec = study.params.model_spec(name)
    device = pick_device(study.params.runtime.device)
    if device.type != "cuda":
        raise ConfigError(
            "distillation.quantization: nf4 needs a CUDA device",
            "set distillation.quantization: none in params.yaml, or run on a GPU",
        )
    folder = resolve(name, spec)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, spec.dtype),
        device_map={"": device},
        use_safetensors=True,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, spec.dtype),
        ),
    )
    return Loaded(model, load_tokenizer(folder), Meter(str(device)))
