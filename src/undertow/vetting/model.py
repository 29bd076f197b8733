"""What a study would do with a model: prompt, end of turn, steering, engine, size, memory.

Needs configuration and tokenizer alone: the model is built without any weights.
"""

from pathlib import Path

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from undertow.config import ModelSpec
from undertow.engine.decode import unsupported
from undertow.errors import UndertowError
from undertow.models.fitness import PROMPT, Fitness, examine
from undertow.models.loading import load_tokenizer, look_at, pick_device, read_config
from undertow.models.prompts import render
from undertow.study.layout import Study
from undertow.study.records import Record

GIB = 2**30


class ModelCheck(Record):
    """`Fitness`, and what it takes to hold and to run the model."""

    fitness: Fitness
    prompt: str
    blocks: int
    hidden_size: int
    parameters: int
    weights_bytes: int
    free_bytes: int
    device: str
    engine: str

    def lines(self) -> str:
        """For people: one line a fact."""
        weights, free = self.weights_bytes / GIB, self.free_bytes / GIB
        room = "" if weights < free else "; that is too little"
        more = {
            "a prompt is": repr(self.prompt),
            "size": f"{self.blocks} blocks of {self.hidden_size}, "
            f"{self.parameters / 1e6:,.0f} million parameters",
            "memory": f"{weights:.2f} GiB of weights; {free:.1f} GiB are free on {self.device}"
            f"{room}",
            "answers on a GPU": self.engine,
        }
        width = max(map(len, [*more, "a student learns to end with"]))
        return "\n".join(
            [self.fitness.lines(), *(f"{name:{width}}  {fact}" for name, fact in more.items())]
        )


def check_model(study: Study, name: str) -> ModelCheck:
    """Raises UndertowError with what to do where the model cannot be studied."""
    params = study.params
    spec = params.model_spec(name)
    folder = look_at(name, spec)
    fitness = examine(folder, params.prompting)
    config, device = read_config(folder), pick_device(params.runtime.device)
    model, numbers = _empty(config), _bytes_of(spec)
    text = config.get_text_config()
    count = sum(each.numel() for each in model.parameters())
    why = unsupported(model)
    return ModelCheck(
        fitness=fitness,
        prompt=_prompt(study, folder),
        blocks=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        parameters=count,
        weights_bytes=count * numbers,
        free_bytes=_free(device),
        device=str(device),
        engine="by the engine, a captured step" if why is None else f"by transformers: {why}",
    )


def _empty(config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _bytes_of(spec: ModelSpec) -> int:
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UndertowError(f"{spec.dtype!r} is no dtype of torch", "write bfloat16 or float32")
    return dtype.itemsize


def _prompt(study: Study, folder: Path) -> str:
    return render(load_tokenizer(folder), PROMPT, study.params.prompting)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
