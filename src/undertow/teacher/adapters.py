"""An adapter of somebody else's as a teacher: found, known by hash, checked against its base.

What is checked needs no weights of the base, so it comes before anything runs.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import AutoModelForCausalLM

from undertow.config import FolderAdapter, ModelSpec
from undertow.config.adapters import FILES, AdapterSpec
from undertow.errors import ConfigError, SourceError
from undertow.models.loading import look_at, read_config
from undertow.student.adapter import without_renamings
from undertow.study.found import tensors
from undertow.study.hub import HUB_ERRORS, explain_hub_error
from undertow.study.layout import Study
from undertow.study.sources import local_folder

SETTINGS, WEIGHTS = FILES
PREFIX = "base_model.model."
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways of initialising LoRA that take something out of the base: putting one on alters it."""


def adapter_folder(study: Study, model: str, arm: str) -> Path:
    """The folder of an arm's adapter for one base, with the bytes that params.yaml names.

    Raises ConfigError where there is no entry, SourceError where files are missing or others.
    """
    spec = study.params.adapter_spec(model, arm)
    folder = _place(arm, spec)
    absent = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).exists()]
    if absent:
        pickled = (folder / "adapter_model.bin").exists()
        raise SourceError(
            f"the adapter of {arm} in {folder} has no {' and no '.join(absent)}",
            "save it with save_pretrained(..., safe_serialization=True): a .bin file is a pickle, "
            "which can run code, and is never read"
            if pickled
            else f"correct adapters.{arm}.{model} in params.yaml; a folder that PEFT's "
            "save_pretrained has written has both",
        )
    found = _hash(*(_state(folder / name) for name in (SETTINGS, WEIGHTS)))
    if found != spec.sha256:
        raise SourceError(
            f"the adapter of {arm} in {folder} has the SHA-256 {found}, and params.yaml names "
            f"{spec.sha256}",
            f"if this is the adapter that you mean, write adapters.{arm}.{model}.sha256: {found} "
            "in params.yaml, which runs its cells again",
        )
    return folder


def check_adapters(study: Study, model: str) -> None:
    """Look at every adapter of the grid before anything runs on its base; raises as above, and
    ConfigError where one is for another base or cannot be put on one as it is."""
    for arm in study.params.grid.adapters:
        check_fits(study, model, arm)


def check_fits(study: Study, model: str, arm: str) -> Path:
    """The folder of an adapter that was made for this base; raises as `check_adapters` does."""
    spec = study.params.model_spec(model)
    folder = adapter_folder(study, model, arm)
    try:
        settings: Any = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder / SETTINGS} cannot be read as PEFT's settings: {error}",
            "save the adapter with the PEFT of constraints.txt",
        ) from error
    _check_kind(folder, settings)
    named = settings.base_model_name_or_path
    if named and _is_another(named, spec):
        raise ConfigError(
            f"the adapter of {arm} in {folder} says that it is for {named}, and {model} is another",
            f"name the adapter of {model} under adapters.{arm}.{model}, or leave {arm} out of "
            "grid.adapters",
        )
    problem = next(_misfits(look_at(model, spec), folder, settings), None)
    if problem:
        raise ConfigError(
            f"the adapter of {arm} in {folder} does not fit {model}: {problem}",
            f"name the adapter of {model} under adapters.{arm}.{model}, or leave {arm} out of "
            "grid.adapters",
        )
    return folder


def _place(arm: str, spec: AdapterSpec) -> Path:
    if isinstance(spec, FolderAdapter):
        return Path(spec.path).expanduser().absolute()
    local, name = local_folder(), spec.repo.split("/")[-1]
    if local and (local / name).exists():
        return local / name
    try:
        path = snapshot_download(
            spec.repo, revision=spec.revision, allow_patterns=[SETTINGS, WEIGHTS]
        )
    except HUB_ERRORS as error:
        problem = explain_hub_error(error, spec.repo)
        by_hand = (
            f"put a copy of it into a folder {name} and set UNDERTOW_LOCAL to the folder above it"
        )
        raise SourceError(
            f"could not get the adapter of {arm}: {problem.reason}",
            f"{problem.remedy}; or {by_hand}" if problem.remedy else by_hand,
        ) from error
    return Path(path)


def _state(path: Path) -> tuple[Path, int, int]:
    """A file as it lies there now: what is known of it holds until one of these changes."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _hash(*files: tuple[Path, int, int]) -> str:
    """SHA-256 of the files one after the other, as `cat` joins them."""
    whole = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as stream:
            while part := stream.read(1 << 20):
                whole.update(part)
    return whole.hexdigest()


def _check_kind(folder: Path, settings: Any) -> None:
    kind = getattr(settings.peft_type, "value", settings.peft_type)
    if settings.is_prompt_learning or settings.is_adaption_prompt:
        raise ConfigError(
            f"{folder} holds {kind}, which adds to the prompt and not to the layers",
            "use an adapter of layers: LoRA, DoRA, IA3, LoHa, LoKr, OFT",
        )
    start = getattr(settings, "init_lora_weights", None)
    if isinstance(start, str) and start.startswith(CHANGES_BASE):
        raise ConfigError(
            f"{folder} starts from {start}, which alters the base itself when it is put on",
            "write it as plain LoRA: PEFT's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)",
        )


def _is_another(named: str, spec: ModelSpec) -> bool:
    """Whether the base that an adapter names is plainly not this one; folders say nothing."""
    own = getattr(spec.weights, "repo", None) or getattr(spec.weights, "file", None)
    if own is None or Path(named).is_absolute():
        return False
    one, other = (text.rstrip("/").split("/")[-1].lower() for text in (named, own))
    return one not in other and other not in one


def _no_linear(adapted: Any) -> Iterator[str]:
    """What is changed beside linear layers: the engine reads a norm's weight past its wrapper."""
    for name, module in adapted.named_modules():
        if isinstance(module, BaseTunerLayer):
            inner: Any = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            inner = module.original_module
        else:
            continue
        if not isinstance(inner, nn.Linear | nn.Embedding):
            yield name.removeprefix(PREFIX)


def _misfits(base: Path, folder: Path, settings: Any) -> Iterator[str]:
    """Why the tensors of an adapter are not those of one on this base; no weights are loaded."""
    with torch.device("meta"):
        bare: Any = AutoModelForCausalLM.from_config(read_config(base))
        own = {PREFIX + name: tuple(value.shape) for name, value in bare.named_parameters()}
        try:
            with without_renamings():
                adapted = get_peft_model(bare, settings)
        except (ValueError, RuntimeError) as error:
            yield str(error).splitlines()[0]
            return
    other = next(_no_linear(adapted), None)
    if other:
        yield f"it changes {other}, and only linear layers and embeddings are taken"
        return
    made = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wanted = {name: tuple(value.shape) for name, value in made.items()}
    with tensors(folder / WEIGHTS, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name in sorted(wanted.keys() - found.keys()):
        yield f"it has no {name}"
    for name, shape in sorted(found.items()):
        expected = wanted.get(name, own.get(name))
        if expected is None:
            yield f"the base has no place for {name}"
        elif expected != shape:
            yield f"{name} is {list(shape)}, and {list(expected)} on this base"
