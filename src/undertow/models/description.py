"""What lies in a resolved model folder: sizes, digests, chat template."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from undertow.models.loading import DOWNLOADED, WEIGHTS, damaged, read_config
from undertow.study.files import digest, fingerprint
from undertow.study.records import ModelFiles


def describe_files(folder: Path) -> ModelFiles:
    """Sizes, digests and chat template of a resolved model folder; reads every byte of it."""
    config = read_config(folder)
    text = config.get_text_config()
    files = sorted(file for file in folder.iterdir() if file.is_file())
    digested = [file for file in files if any(file.match(pattern) for pattern in DOWNLOADED)]
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter
        digests = list(threads.map(digest, digested))
    return ModelFiles(
        family=config.model_type,
        blocks=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        parameters=sum(_numbers(file) for file in files if file.match(WEIGHTS)),
        digests=dict(zip((file.name for file in digested), digests, strict=True)),
        chat_template=_chat_template(folder),
    )


def _numbers(weights: Path) -> int:
    """How many numbers a safetensors file stores; reads its header only."""
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise damaged(weights, error) from error
    return sum(torch.Size(shape).numel() for shape in shapes)


def _chat_template(folder: Path) -> str | None:
    template = folder / "chat_template.jinja"
    if template.exists():
        return fingerprint(template.read_text(encoding="utf-8"))
    settings = folder / "tokenizer_config.json"
    if not settings.exists():
        return None
    text = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
    return fingerprint(text) if text else None
