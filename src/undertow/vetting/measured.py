"""What a base model shows of a trait before it is steered: separation, and room on the margin."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.errors import UndertowError
from undertow.models.loading import load_model, load_tokenizer, pick_device, resolve
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.readouts.activations import last_token_activations
from undertow.readouts.margin import margins
from undertow.study.layout import Study
from undertow.study.traits import Openings, Trait
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.wording import Texts

LEAST_AUC = 0.9
LEAST_ROOM = 0.5  # nats


def measured(study: Study, name: str, trait: Trait, texts: Texts) -> Iterator[TraitFinding]:
    """Loads the model; a minute for a small one on a CPU."""
    params = study.params
    spec = params.model_spec(name)
    folder = resolve(name, spec)
    tokenizer = load_tokenizer(folder)
    yield from token_lengths(tokenizer, trait.openings)
    model = load_model(folder, spec.dtype, pick_device(params.runtime.device))
    size = params.runtime.batch_size
    yield _separation(model, tokenizer, texts, params.prompting, size)
    try:
        yield from _room(model, tokenizer, trait, texts, params.prompting, size)
    except UndertowError as error:
        yield judged("margin", error.message, error.remedy or "", wrong=True)


def token_lengths(tokenizer: PreTrainedTokenizerBase, openings: Openings) -> Iterator[TraitFinding]:
    """How many tokens the openings of both sides have."""
    sides = [
        [len(encode(tokenizer, text)) for text in side]
        for side in (openings.present, openings.absent)
    ]
    means = [sum(side) / len(side) for side in sides]
    yield judged(
        "opening tokens",
        f"{means[0]:.1f} on average with the trait, {means[1]:.1f} without",
        "each token more makes an opening less likely: choose words of as many tokens",
        weak=abs(means[0] - means[1]) > 0.5,
    )


def _separation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    prompting: Prompting,
    batch_size: int,
) -> TraitFinding:
    """AUC by block: held-back prompts along the direction of the contrast prompts."""

    def read(prompts: Sequence[str]) -> Tensor:
        return last_token_activations(model, tokenizer, prompts, prompting, batch_size)

    along = read(texts.contrast.present).mean(0) - read(texts.contrast.absent).mean(0)
    present, absent = (
        torch.einsum("pbh,bh->bp", read(side), along).numpy() for side in texts.heldback
    )
    found = [area(yes, no) for yes, no in zip(present, absent, strict=True)]
    best = max(range(len(found)), key=found.__getitem__)
    each = " ".join(f"{value:.2f}" for value in found)
    return judged(
        "separation",
        f"held-back prompts by block, AUC: {each}; best {found[best]:.2f} at block {best}",
        f"below {LEAST_AUC} the direction does not tell the two sides apart: write contrast "
        "prompts that differ in the trait and in little else, short and parallel, by a word and "
        "its opposite and not by a negation",
        weak=found[best] < LEAST_AUC,
    )


def area(
    present: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    absent: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> float:
    """Probability that one with the trait lies above one without; half of it where they tie."""
    ranks = rankdata(np.concatenate([present, absent]))[: len(present)]
    n = len(present)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(absent)))


def _room(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trait: Trait,
    texts: Texts,
    prompting: Prompting,
    batch_size: int,
) -> Iterator[TraitFinding]:
    """Where the base stands on evaluation prompts, beside prompts that ask for either side."""

    def read(prompts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        rows = [
            RenderedPrompt(str(number), render(tokenizer, text, prompting))
            for number, text in enumerate(prompts)
        ]
        values: dict[str, float] = {}
        for part in margins(model, tokenizer, rows, trait.openings, batch_size):
            values.update(part)
        return np.array([values[row.id] for row in rows])

    present, absent = map(read, texts.heldback)
    base = read([row.prompt for row in texts.evaluation])
    told = area(present, absent)
    yield judged(
        "margin",
        f"asked for the trait {present.mean():+.2f} nats, asked for its opposite "
        f"{absent.mean():+.2f}; AUC {told:.2f}",
        f"below {LEAST_AUC} the openings do not show what is asked for: open as the model does "
        "when it is asked for either side, with openings that part at their first words",
        weak=told < LEAST_AUC,
    )
    room = float(present.mean() - base.mean())
    yield judged(
        "headroom",
        f"the base reads {base.mean():+.2f} nats on evaluation prompts and {present.mean():+.2f} "
        f"where it is asked for the trait: {room:+.2f} nats of room, of {LEAST_ROOM} or more",
        "the base shows the trait as it is: ask evaluation prompts that leave the answer open",
        weak=room < LEAST_ROOM,
    )
