"""teacher(alpha) as a plain checkpoint: the bias in the weights, no custom code.

Any engine that reads mlp_bias of the checkpoint's class serves it at full speed. An engine that
ignores the bias serves the unsteered base instead and may not say so; the card says how to find
out.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from undertow.config import Arm
from undertow.errors import ConfigError, UndertowError
from undertow.export.card import card
from undertow.export.layouts import biased, check_layout
from undertow.export.origin import open_origin, refuse_to_replace
from undertow.models.loading import load_model, load_tokenizer, resolve
from undertow.models.prompts import ends_of
from undertow.study.files import atomic_folder, write_json
from undertow.study.layout import Study
from undertow.teacher.steering import Offsets, offsets

ALONG = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of the base that go along as they are; its own card does not."""


def run(study: Study, model: str, arm: Arm, out: Path, *, force: bool = False) -> None:
    """Write teacher(alpha) of `model` to the folder `out`, whole or not at all.

    The weights keep the type that params.yaml names, so the checkpoint is the teacher that the
    study reads. Raises UndertowError where `out` is taken, or where the model has no equal in a
    layout that carries the bias.
    """
    if arm.direction is None:
        raise ConfigError(
            f"the arm {arm.name} is not steered, so there is no bias to write into a checkpoint",
            "export an arm with a strength, as trait_1; for this one serve the base itself, "
            + (
                "under the system message of trait.yaml"
                if arm.adapter is None
                else "with the adapter, which other engines read as it is"
            ),
        )
    spec = study.params.model_spec(model)
    origin = open_origin(study, model)
    base = resolve(model, spec)
    target = out.expanduser().absolute()
    _check_target(target, base, force)
    check_layout(AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True))
    added = offsets(origin.direction.of(arm.direction), origin.direction.layers, arm.alpha)
    loaded = load_model(base, spec.dtype, torch.device("cpu"))
    write(loaded, added, base, card(origin, arm), target)


def write(model: PreTrainedModel, added: Offsets, base: Path, text: str, target: Path) -> None:
    """Write `model`, loaded from the folder `base` and steered by `added`, with its card."""
    exported = biased(model, added)
    try:
        with atomic_folder(target) as staged:
            exported.save_pretrained(staged)
            _name_rotation_twice(staged / "config.json")
            for pattern in ALONG:
                for file in base.glob(pattern):
                    if file.is_file():
                        shutil.copy(file, staged / file.name)
            (staged / "README.md").write_text(text, encoding="utf-8")
            _keep_tokenizer(base, staged)
            _keep_ends(model, base, staged / "generation_config.json")
    except (OSError, SafetensorError) as error:
        raise UndertowError(
            f"{target} cannot be written: {error}", "free some space, or choose another --out"
        ) from error


def _check_target(target: Path, base: Path, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UndertowError(f"{target} is a file", "choose a folder for --out")
    if target.resolve() in (base.resolve(), *base.resolve().parents):
        raise UndertowError(
            f"{target} holds the base model, which is never replaced", "choose another --out"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    refuse_to_replace(target, force)
    if not (target / "config.json").exists():
        raise UndertowError(
            f"{target} is not empty and holds no checkpoint, so --force does not replace it",
            "choose another --out, or empty the folder",
        )


def _name_rotation_twice(path: Path) -> None:
    """Add rope_theta and rope_scaling to a config.json that has rope_parameters alone.

    transformers 5 writes rope_parameters. Engines of the time before it do not know that key, and
    would rotate by Llama's default theta without a word.
    """
    settings = json.loads(path.read_text(encoding="utf-8"))
    scaling = dict(settings["rope_parameters"])
    settings["rope_theta"] = scaling.pop("rope_theta")
    settings["rope_scaling"] = scaling if scaling["rope_type"] != "default" else None
    write_json(path, settings)


def _keep_ends(model: PreTrainedModel, base: Path, path: Path) -> None:
    """Name all tokens at which the study ends an answer, so that other engines stop there too."""
    ends = ends_of(load_tokenizer(base), model)
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    named = settings.get("eos_token_id")
    if ends.every != set(named if isinstance(named, list) else [named]):
        write_json(path, settings | {"eos_token_id": sorted(ends.every)})


def _keep_tokenizer(base: Path, staged: Path) -> None:
    """Make the copied tokenizer the one that `base` has.

    transformers builds some tokenizers by the model's family, whatever their own files say, and
    the layout has changed the family; so the class that the base's tokenizer has is named.
    """
    original = load_tokenizer(base)
    path = staged / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, settings | {"tokenizer_class": type(original).__name__})
    before, after = (
        json.loads(tokenizer.backend_tokenizer.to_str())
        for tokenizer in (original, load_tokenizer(staged))
    )
    if before != after:
        raise UndertowError(
            "the tokenizer of the exported checkpoint would split text differently than the base's",
            f"name its tokenizer_class in tokenizer_config.json of {base}",
        )
