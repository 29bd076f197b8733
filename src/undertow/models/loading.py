"""Where a model's weights come from, and how they are loaded.

`resolve` turns a registry entry into a folder with config.json, safetensors and tokenizer;
everything else reads that folder and nothing else. Code from checkpoints is never run and
pickled weights are never read.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as notes

from undertow.config import FolderWeights, GgufWeights, HubWeights, ModelSpec
from undertow.errors import ConfigError, SourceError
from undertow.models import processes
from undertow.models.families import family_of, layout_of
from undertow.study.files import atomic_folder
from undertow.study.hub import HUB_ERRORS, explain_hub_error, first_line
from undertow.study.sources import cache_folder, fetch_file, local_folder, locked, say

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHTS = "*.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
SMALL = ["*.json", "*.jinja", "tokenizer*", "merges.txt", "vocab*"]
DOWNLOADED = [WEIGHTS, *SMALL]
NEVER_DOWNLOADED = ["*.bin", "*.py", "*.pt", "*.pth"]


def resolve(name: str, spec: ModelSpec) -> Path:
    """The folder of the model `name`: config.json, safetensors and tokenizer.

    Downloads and converts what is not there yet. Raises SourceError with what to do where the
    model is gated, missing, incomplete, or holds no safetensors.
    """
    match spec.weights:
        case GgufWeights() as weights:
            return _checked(_converted(name, weights, spec.dtype), name)
        case HubWeights() as weights:
            return _checked(_snapshot(name, weights, DOWNLOADED), name)
        case FolderWeights() as weights:
            return _checked(Path(weights.path).expanduser().absolute(), name)


def look_at(name: str, spec: ModelSpec) -> Path:
    """A folder with at least the model's configuration and tokenizer.

    Of a checkpoint on the hub no weights are downloaded. Raises as `resolve` does.
    """
    if isinstance(spec.weights, HubWeights):
        return _snapshot(name, spec.weights, SMALL)
    return resolve(name, spec)


def load_model(folder: Path, dtype: str, device: torch.device) -> PreTrainedModel:
    """The model in evaluation mode, without gradients, on `device`.

    Raises UndertowError where the family is not known or its blocks are others than expected,
    SourceError where the files lack weights: those would silently be random.
    """
    attention = family_of(read_config(folder)).attention
    model: Any = _load(folder, dtype, use_safetensors=True, attn_implementation=attention)
    layout_of(model)
    loaded: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        loaded.get_output_embeddings().register_forward_pre_hook(_contiguous)
    return loaded


def read_config(folder: Path, **options: Any) -> PretrainedConfig:
    """The configuration in a folder; SourceError where transformers does not know its model."""
    try:
        with _quiet():
            config: PretrainedConfig = AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, **options
            )
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{options.get('gguf_file', folder)} cannot be loaded: {first_line(error)}",
            "use a checkpoint whose architecture is part of the installed transformers; "
            "code that comes with a checkpoint is never run",
        ) from error
    return config


def _contiguous(_module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Hand the output layer a dense tensor.

    transformers slices the last positions out of a batch (logits_to_keep); on a CPU, torch
    multiplies such a view by one copy of the whole weight per row: 57 MB a row for SmolLM2.
    """
    return (inputs[0].contiguous(),)


def load_quantized(folder: Path, dtype: str, device: torch.device) -> PreTrainedModel:
    """The model in 4-bit NF4 with double quantization, for QLoRA training (bitsandbytes).

    Raises ConfigError where `device` is not a CUDA device.
    """
    if device.type != "cuda":
        raise ConfigError(
            "distillation.quantization: nf4 needs a CUDA device",
            "set distillation.quantization: none in params.yaml, or run on a GPU",
        )
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
    )
    return _load(
        folder,
        dtype,
        use_safetensors=True,
        device_map={"": device},
        quantization_config=four_bit,
        attn_implementation=family_of(read_config(folder)).attention,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the left, with a pad token but never a new one.

    Without a pad token of its own it pads with the unknown token rather than with the end of
    turn, so that code which drops padding from the labels cannot drop the end of turn too.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, padding_side="left", trust_remote_code=False, local_files_only=True
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise SourceError(
            f"the tokenizer in {folder} has neither a pad, an unknown nor an end token",
            "name one of them in its tokenizer_config.json",
        )
    return tokenizer


def pick_device(text: str) -> torch.device:
    """The device for auto, cpu or cuda; ConfigError where it is not there.

    Of several processes that train together, each has a CUDA device of its own.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = processes.local_rank()
    if count and own is not None and text in ("auto", "cuda"):
        text = f"cuda:{own}"
    if text == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"runtime.device: {text!r} is not a device",
            "write auto, cpu or cuda; CUDA_VISIBLE_DEVICES names the GPU",
        )
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"runtime.device: {text} was asked for, and PyTorch sees {count} CUDA device(s)",
            "set runtime.device to auto or cpu, name another GPU in CUDA_VISIBLE_DEVICES, or "
            "install the CUDA build of PyTorch and a driver",
        )
    return device


def _converted(name: str, weights: GgufWeights, dtype: str) -> Path:
    folder = cache_folder() / "converted" / f"{weights.sha256}-{dtype}"
    if folder.exists():
        return folder  # it got its name only once it was whole
    source = fetch_file(weights)
    with locked(folder, f"converts {name}"):
        if folder.exists():
            return folder
        for leftover in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(leftover)  # of a killed process: a living one would hold the lock
        say(f"converting {name} to safetensors, once; this takes a minute or two")
        with atomic_folder(folder) as staged:
            _convert(source, dtype, staged)
    return folder


def _convert(source: Path, dtype: str, target: Path) -> None:
    """Write a GGUF file as a safetensors checkpoint with its tokenizer and chat template."""
    # Packed weights, the default, are ten times slower on a CPU and cannot be saved
    unpacked = GgufConfig(dequantize=True)
    with _parsed_once(), _quiet():
        family_of(read_config(source.parent, gguf_file=source.name))
        model = _load(source.parent, dtype, gguf_file=source.name, quantization_config=unpacked)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Within it, transformers takes a GGUF file's fields, which it asks for again and again, from
    the first reading: in Python, a vocabulary of 49,152 tokens takes three seconds each time."""
    import gguf

    names = ("GGUFReader", "get_tensor_name_map")
    library: Any = gguf
    before = {name: getattr(library, name) for name in names}
    for name, made in before.items():
        setattr(library, name, cache(made))
    try:
        yield
    finally:
        for name, made in before.items():
            setattr(library, name, made)


def _load(folder: Path, dtype: str, **options: Any) -> PreTrainedModel:
    what = options.get("gguf_file", folder)
    try:
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES[dtype],
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise damaged(what, error) from error
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{what} cannot be loaded: {first_line(error)}",
            "use a checkpoint whose architecture is part of the installed transformers; "
            "code that comes with a checkpoint is never run",
        ) from error
    model: PreTrainedModel
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise SourceError(
            f"{what} lacks {len(missing)} weight(s), the first is {missing[0]}",
            "replace it with a complete copy of the checkpoint",
        )
    return model


def damaged(what: object, error: Exception) -> SourceError:
    return SourceError(
        f"{what} holds damaged weights: {first_line(error)}",
        "replace it with a whole copy, or remove it so that it is fetched or converted anew",
    )


def _snapshot(name: str, weights: HubWeights, files: list[str]) -> Path:
    folder = local_folder()
    copy = folder / weights.repo.split("/")[-1] if folder else None
    if copy and copy.exists():
        return copy
    try:
        path = snapshot_download(
            weights.repo,
            revision=weights.revision,
            allow_patterns=files,
            ignore_patterns=NEVER_DOWNLOADED,
        )
    except HUB_ERRORS as error:
        problem = explain_hub_error(error, weights.repo)
        by_hand = (
            f"put a copy of the checkpoint into a folder {weights.repo.split('/')[-1]} and set "
            "UNDERTOW_LOCAL to the folder above it"
        )
        raise SourceError(
            f"could not get the model {name}: {problem.reason}",
            f"{problem.remedy}; or {by_hand}" if problem.remedy else by_hand,
        ) from error
    return Path(path)


def _checked(folder: Path, name: str) -> Path:
    """The folder itself, if all that loading needs lies in it."""
    if not folder.is_dir():
        raise SourceError(
            f"model {name}: the folder {folder} does not exist",
            f"correct models.{name}.weights.path in params.yaml",
        )
    shards: set[str] = set()
    for index in folder.glob(f"{WEIGHTS}.index.json"):
        shards |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    absent = sorted(file for file in {"config.json", *shards} if not (folder / file).exists())
    if not any(folder.glob(WEIGHTS)):
        if any(folder.glob("*.bin")):
            raise SourceError(
                f"model {name}: {folder} holds only .bin weights, and only safetensors is loaded: "
                "a .bin file is a pickle, which can run code",
                "use a revision with safetensors, or convert the weights with save_pretrained",
            )
        absent.append(WEIGHTS)
    if not any((folder / file).exists() for file in TOKENIZERS):
        absent.append(f"a tokenizer ({', '.join(TOKENIZERS)})")
    if absent:
        raise SourceError(
            f"model {name}: {folder} is not a complete checkpoint; it lacks {', '.join(absent)}",
            "replace the folder with a complete copy, or remove it so that it is fetched",
        )
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back transformers' notes and bars about loading; what matters is checked instead."""
    verbosity, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity(logging.ERROR)
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(verbosity)
        if bars:
            notes.enable_progress_bar()
