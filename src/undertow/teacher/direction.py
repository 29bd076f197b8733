"""The trait's direction: difference of mean activations, and the block where it acts.

Mean difference and block selection follow Arditi et al. (arXiv:2406.11717).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.errors import UndertowError
from undertow.models.memory import halving
from undertow.models.prompts import RenderedPrompt, encode, left_padded
from undertow.readouts.activations import mean_activations
from undertow.readouts.margin import margins_together
from undertow.study.found import tensors
from undertow.study.records import Record
from undertow.study.traits import Contrast, Openings
from undertow.teacher.several import steer_together
from undertow.teacher.steering import offsets, steer


class Direction(NamedTuple):
    """vectors and random: [blocks, hidden] float32; layers: 0-based blocks that are steered.

    random_seed: that `random` was drawn with; the draw of a later seed follows from it.
    """

    vectors: Tensor
    random: Tensor
    layers: list[int]
    random_seed: int = 0

    def of(self, name: str, seed: int = 0) -> Tensor:
        """The vectors of an arm; every seed of a random arm draws its own, seed 0 the stored."""
        if name != "random":
            return self.vectors
        return self.random if seed == 0 else random_like(self.vectors, self.random_seed + seed)


class BlockScore(Record):
    """What subtracting the direction at one block does to held-back prompts."""

    layer: int
    margin: float  # nats, mean over trait-present prompts after subtraction; lower is better
    kl: float  # nats, base to subtracted, next token after benign prompts


def mean_difference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contrast: Contrast,
    prompting: Prompting,
    batch_size: int,
) -> Tensor:
    """[blocks, hidden] float32: mean with the trait minus mean without, accumulated in float64."""
    present = mean_activations(model, tokenizer, contrast.present, prompting, batch_size)
    absent = mean_activations(model, tokenizer, contrast.absent, prompting, batch_size)
    return (present - absent).float()


def random_like(vectors: Tensor, seed: int) -> Tensor:
    """Random vectors with the norm of `vectors` at every block: the control direction."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape, generator=generator)
    scaled: Tensor = noise * (vectors.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True))
    return scaled


def score_blocks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vectors: Tensor,
    candidates: Sequence[int],
    heldback: Sequence[RenderedPrompt],
    benign: Sequence[RenderedPrompt],
    openings: Openings,
    batch_size: int,
    at_once: int = 1,
) -> list[BlockScore]:
    """Subtract the direction (alpha = -1) at each candidate block and see what happens.

    at_once: how many candidates share a batch, each on its own rows; the last batch is as large.
    """
    (base,) = _next_token(model, tokenizer, benign, batch_size, 1)
    scores: list[BlockScore] = []
    for start in range(0, len(candidates), at_once):
        part = candidates[start : start + at_once]
        subjects = [offsets(vectors, [layer], -1.0) for layer in part]
        subjects += [{} for _ in range(at_once - len(part))]
        values: list[dict[str, float]] = [{} for _ in subjects]
        steered_by = steer(model, subjects[0]) if at_once == 1 else steer_together(model, subjects)
        with steered_by:
            for found in margins_together(
                model, tokenizer, heldback, openings, batch_size, at_once
            ):
                for own, new in zip(values, found, strict=True):
                    own.update(new)
            steered = _next_token(model, tokenizer, benign, batch_size, at_once)
        for layer, own, predicted in zip(part, values, steered, strict=False):
            kl = (base.exp() * (base - predicted)).sum(-1).mean().item()
            scores.append(BlockScore(layer=layer, margin=sum(own.values()) / len(own), kl=kl))
    return scores


def choose_block(scores: Sequence[BlockScore], max_kl: float) -> int:
    """The block whose subtraction removes most of the trait and leaves benign prompts alone."""
    gentle = [score for score in scores if score.kl <= max_kl]
    if not gentle:
        mildest = min(scores, key=lambda score: score.kl)
        raise UndertowError(
            f"subtracting the direction changes benign prompts by more than "
            f"direction.max_kl = {max_kl} nats at every block "
            f"(least at block {mildest.layer}: {mildest.kl:.3f})",
            f"set direction.max_kl to {mildest.kl * 1.1:.2f} or more, or name direction.layers",
        )
    return min(gentle, key=lambda score: score.margin).layer


@torch.inference_mode()
def _next_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    batch_size: int,
    subjects: int,
) -> Tensor:
    """[S, prompts, vocabulary] log-probabilities of the first answer token."""

    def work(rows: Sequence[RenderedPrompt]) -> list[Tensor]:
        encoded = [encode(tokenizer, row.text) for row in rows]
        batch = left_padded(tokenizer, encoded * subjects, model.device)
        logits = model(
            input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=1
        ).logits[:, -1]
        found = torch.log_softmax(logits.float(), dim=-1).cpu()
        return list(found.view(subjects, len(rows), -1).transpose(0, 1))

    parts = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    return torch.stack([row for part in parts for row in halving(part, work)], dim=1)


def save_direction(path: Path, direction: Direction, metadata: dict[str, Any]) -> None:
    """One safetensors file with the metadata as JSON in its header.

    A single header key, because safetensors writes several in a different order each time, and
    the file's hash decides what DVC runs again.
    """
    header = {"undertow": json.dumps(metadata | {"layers": direction.layers}, sort_keys=True)}
    tensors = {"trait": direction.vectors.contiguous(), "random": direction.random.contiguous()}
    save_file(tensors, path, metadata=header)


def load_direction(path: Path) -> Direction:
    """The vectors and the steered blocks; DataError where the file is absent or damaged."""
    with tensors(path, "pt") as file:
        metadata = json.loads(file.metadata()["undertow"])
        return Direction(
            file.get_tensor("trait"),
            file.get_tensor("random"),
            metadata["layers"],
            metadata.get("random_seed", 0),
        )


def read_metadata(path: Path) -> dict[str, Any]:
    """What `save` was given as metadata, with the steered layers."""
    with tensors(path, "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["undertow"])
        return found
