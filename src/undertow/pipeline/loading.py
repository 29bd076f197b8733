"""A model of the registry, loaded where the parameters say, once for many cells."""

import time
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.models.loading import load_model, load_quantized, load_tokenizer, pick_device, resolve
from undertow.models.memory import free_memory, spare_imports
from undertow.pipeline.meter import Meter
from undertow.study.layout import Study


class Loaded(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    meter: Meter


class Shelf:
    """Keeps loaded models, so that many stages in one process share one load.

    A stage hands a model back as it got it: steering and adapters come off in context managers.
    Where one has failed that is not certain, so its caller clears the shelf.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, bool], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = {}
        self.seconds = 0.0  # that loading has taken

    def load(self, study: Study, name: str, *, nf4: bool = False, tidy: bool = True) -> Loaded:
        """The model, loaded at its first use, with a meter that starts now.

        tidy: give back first what ended work still holds on a GPU, whose free memory is then the
        same in every run. It takes a while, so who asks little of the model need not.
        Raises ConfigError or SourceError, which say what to do.
        """
        spec = study.params.model_spec(name)
        device = pick_device(study.params.runtime.device)
        if device.type == "cuda":
            spare_imports()
            if tidy or (name, nf4) not in self._held:
                free_memory()  # what ended work still holds: only the collector frees its cycles
        meter = Meter(str(device))
        if (name, nf4) not in self._held:
            if device.type == "cuda" and not half_free(device):
                self.clear()
            started = time.perf_counter()
            with meter.loading():
                folder = resolve(name, spec)
                read = load_quantized if nf4 else load_model
                held = (read(folder, spec.dtype, device), load_tokenizer(folder))
                if device.type == "cuda":
                    free_memory()  # what loading needed besides
            self._held[name, nf4] = held
            self.seconds += time.perf_counter() - started
        model, tokenizer = self._held[name, nf4]
        # Training leaves the mode of training behind.
        return Loaded(model.eval(), tokenizer, meter)

    def clear(self) -> None:
        """Let go of every model."""
        self._held.clear()
        free_memory()


def half_free(device: torch.device) -> bool:
    """Whether a second form of a model may stay beside the first one."""
    free, total = torch.cuda.mem_get_info(device)
    return 2 * free >= total
