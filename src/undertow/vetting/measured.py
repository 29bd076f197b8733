"""What a base model shows of a trait before it is steered: separation, and room on the margin."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

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
from undertow.study.progress import counting
from undertow.study.traits import Openings, Trait
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.written import FEWEST_HELDBACK, Texts, needed

LEAST_AUC = 0.9
LEAST_ROOM = 0.5  # nats
AT_ONCE = 16  # prompts: a count that goes on every few seconds, at no cost on a CPU
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def measured(study: Study, name: str, trait: Trait, texts: Texts) -> Iterator[TraitFinding]:
    """Loads the model; a minute for a small one on a CPU, with its progress on stderr.

    Read are the prompts that a study by params.yaml takes.
    """
    texts = texts.first(needed(study.params))
    prompts = len(texts.learnt) + sum(map(len, texts.heldback)) + len(texts.evaluation)
    what = f"trait check {trait.name} on {name}"
    with counting(what, prompts, "prompt") as more:
        yield from _measured(study, name, trait, texts, more)


def _measured(
    study: Study, name: str, trait: Trait, texts: Texts, more: Callable[[int], None]
) -> Iterator[TraitFinding]:
    params = study.params
    spec = params.model_spec(name)
    folder = resolve(name, spec)
    tokenizer = load_tokenizer(folder)
    yield from token_lengths(tokenizer, trait.openings)
    model = load_model(folder, spec.dtype, pick_device(params.runtime.device))
    size = min(params.runtime.batch_size, AT_ONCE)
    base = Base(model, tokenizer, params.prompting, size, more)
    yield _separation(base, texts, params.direction.layers)
    try:
        yield from _room(base, trait, texts)
    except UndertowError as error:
        yield judged("margin", error.message, error.remedy or "", wrong=True)


class Base(NamedTuple):
    """A base model that reads prompts; `more` is called with how many it has read."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompting: Prompting
    batch_size: int
    more: Callable[[int], None]

    def activations(self, prompts: Sequence[str]) -> Tensor:
        """[prompts, blocks, hidden] at the last prompt token, a batch at a time."""
        size, parts = self.batch_size, []
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            parts.append(
                last_token_activations(self.model, self.tokenizer, part, self.prompting, size)
            )
            self.more(len(part))
        return torch.cat(parts)

    def margins(self, prompts: Sequence[str], openings: Openings) -> Floats:
        """[prompts] in nats."""
        rows = [
            RenderedPrompt(str(number), render(self.tokenizer, text, self.prompting))
            for number, text in enumerate(prompts)
        ]
        values: dict[str, float] = {}
        for part in margins(self.model, self.tokenizer, rows, openings, self.batch_size):
            values.update(part)
            self.more(len(part))
        return np.array([values[row.id] for row in rows])


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


def _separation(base: Base, texts: Texts, steered: Sequence[int] | str) -> TraitFinding:
    """AUC by block: held-back prompts along the direction of the contrast prompts."""
    with_trait, without = map(base.activations, texts.contrast)
    along = with_trait.mean(0) - without.mean(0)
    present, absent = (
        torch.einsum("pbh,bh->bp", base.activations(side), along).numpy() for side in texts.heldback
    )
    found = [area(yes, no) for yes, no in zip(present, absent, strict=True)]
    best = max(range(len(found)), key=found.__getitem__)
    each = " ".join(f"{value:.2f}" for value in found)
    named = () if isinstance(steered, str) else [n for n in steered if n < len(found)]
    here = "".join(f"; {found[n]:.2f} at block {n} of direction.layers" for n in named)
    return judged(
        "separation",
        f"held-back prompts by block, AUC: {each}; best {found[best]:.2f} at block {best}{here}",
        f"below {LEAST_AUC} the direction does not tell the two sides apart: write contrast "
        "prompts that differ in the trait and in little else, short and parallel, by a word and "
        "its opposite and not by a negation",
        weak=found[best] < LEAST_AUC,
        few=too_few(texts),
    )


def too_few(texts: Texts) -> str | None:
    """Why an AUC over these held-back prompts says nothing: a few are told apart by chance."""
    counts = tuple(map(len, texts.heldback))
    if min(counts) >= FEWEST_HELDBACK:
        return None
    return (
        f"{counts[0]} and {counts[1]} held-back prompts are told apart by chance as well: write "
        f"at least {FEWEST_HELDBACK} of each side to heldback.jsonl"
    )


def area(present: Floats, absent: Floats) -> float:
    """Probability that one with the trait lies above one without; half of it where they tie."""
    ranks = rankdata(np.concatenate([present, absent]))[: len(present)]
    n = len(present)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(absent)))


def _room(base: Base, trait: Trait, texts: Texts) -> Iterator[TraitFinding]:
    """Where the base stands on evaluation prompts, beside prompts that ask for either side."""
    present, absent = (base.margins(side, trait.openings) for side in texts.heldback)
    plain = base.margins([row.prompt for row in texts.evaluation], trait.openings)
    told = area(present, absent)
    yield judged(
        "margin",
        f"asked for the trait {present.mean():+.2f} nats, asked for its opposite "
        f"{absent.mean():+.2f}; AUC {told:.2f}",
        f"below {LEAST_AUC} the openings do not show what is asked for: open as the model does "
        "when it is asked for either side, with openings that part at their first words",
        weak=told < LEAST_AUC,
        few=too_few(texts),
    )
    room = float(present.mean() - plain.mean())
    yield judged(
        "headroom",
        f"the base reads {plain.mean():+.2f} nats on evaluation prompts and {present.mean():+.2f} "
        f"where it is asked for the trait: {room:+.2f} nats of room, of {LEAST_ROOM} or more",
        "the base shows the trait as it is: ask evaluation prompts that leave the answer open",
        weak=room < LEAST_ROOM,
    )
