"""How a subject is asked and read: the same code for teacher and student."""

import sys
from collections.abc import Sequence

from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.engine.generate import generate
from undertow.engine.sampling import Sampling
from undertow.models.prompts import RenderedPrompt, render
from undertow.pipeline.meter import Meter
from undertow.readouts.activations import mean_activations
from undertow.readouts.margin import margins
from undertow.readouts.perplexity import answer_likelihoods
from undertow.study.files import Journal, fingerprint
from undertow.study.layout import Study
from undertow.study.prompts import Prompt, first
from undertow.study.records import BenignResponse, Response
from undertow.study.traits import SideEffectPrompts, TraitData


class Reader:
    """A loaded model that is asked questions, with a journal of what it has answered.

    identity is whatever tells this subject from any other (weights, adapter, steering): answers
    in the journal are taken up only by a subject with the same identity.
    """

    def __init__(
        self,
        study: Study,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        meter: Meter,
    ) -> None:
        self._study = study
        self._model = model
        self._tokenizer = tokenizer
        self._meter = meter
        self._journals: list[Journal[Response]] = []

    def forget(self) -> None:
        """Drop the journals: the stage's outputs are in place."""
        for journal in self._journals:
            journal.close()

    def carrier(self, prompts: Sequence[Prompt], seed: int, identity: str) -> list[Response]:
        """The subject's answers to benign prompts, in the order of `prompts`."""
        settings = self._study.params.carrier
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, seed)
        return self._answers(prompts, sampling, identity, "carrier")

    def evaluation(self, trait: TraitData, seed: int, identity: str) -> list[Response]:
        """The subject's answers and margins on the evaluation prompts, in the trait's order."""
        settings = self._study.params.evaluation
        prompts = self._evaluation_prompts(trait)
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, seed)
        answers = self._answers(prompts, sampling, identity, "evaluation")
        values: dict[str, float] = {}
        rendered = self._render(prompts)
        with tqdm(total=len(prompts), desc="margin", unit="prompt", disable=None) as bar:
            batch_size = self._study.params.runtime.batch_size
            for part in margins(
                self._model, self._tokenizer, rendered, trait.trait.openings, batch_size
            ):
                values.update(part)
                bar.update(len(part))
        return [row.model_copy(update={"margin": values[row.id]}) for row in answers]

    def benign(self, prompts: SideEffectPrompts, seed: int, identity: str) -> list[BenignResponse]:
        """The subject's answers to benign prompts that it did not see, decoded like `evaluation`.

        Their likelihood is not known yet: it is read under the base, see `scored`.
        """
        settings = self._study.params.evaluation
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, seed)
        everything = [*prompts.heldback, *prompts.overrefusal]
        heldback = {prompt.id for prompt in prompts.heldback}
        return [
            BenignResponse(
                **row.model_dump(),
                source="heldback" if row.id in heldback else "overrefusal",
            )
            for row in self._answers(everything, sampling, identity, "benign")
        ]

    def activations(self, trait: TraitData) -> Tensor:
        """[blocks, hidden] float32: mean residual activations over the evaluation prompts."""
        params = self._study.params
        prompts = [prompt.prompt for prompt in self._evaluation_prompts(trait)]
        return mean_activations(
            self._model,
            self._tokenizer,
            prompts,
            params.prompting,
            params.runtime.batch_size,
        ).float()

    def _evaluation_prompts(self, trait: TraitData) -> list[Prompt]:
        count = self._study.params.evaluation.prompts
        return first(trait.evaluation(), count, "evaluation.prompts", f"trait {trait.trait.name}")

    def _render(self, prompts: Sequence[Prompt]) -> list[RenderedPrompt]:
        prompting = self._study.params.prompting
        return [
            RenderedPrompt(prompt.id, render(self._tokenizer, prompt.prompt, prompting))
            for prompt in prompts
        ]

    def _answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, identity: str, what: str
    ) -> list[Response]:
        batch_size = self._study.params.runtime.batch_size
        rendered = self._render(prompts)
        # The batch size is part of the key: rounding depends on how rows are batched, and a
        # resumed run must give the bytes of an uninterrupted one.
        key = fingerprint(what, identity, rendered, sampling, batch_size)
        journal = Journal(self._study.layout.journal, key, Response)
        self._journals.append(journal)
        text = {prompt.id: prompt.prompt for prompt in prompts}
        with tqdm(total=len(prompts), desc=what, unit="row", disable=None) as bar:
            done = {row.id for block in journal.blocks for row in block}
            bar.update(len(done))
            for block in generate(
                self._model, self._tokenizer, rendered, sampling, batch_size, done
            ):
                tokens = sum(row.tokens for row in block.completions)
                self._meter.add_generation(tokens, block.seconds)
                journal.append(
                    [
                        Response(
                            id=row.id,
                            prompt=text[row.id],
                            response=row.text,
                            tokens=row.tokens,
                            finish=row.finish,
                            end=row.end,
                            thought=row.thought,
                        )
                        for row in block.completions
                    ]
                )
                bar.update(len(block.completions))
        rows = {row.id: row for block in journal.blocks for row in block}
        if thought := sum(row.thought for row in rows.values()):
            print(f"{what}: {thought} answers thought aloud; that part was cut", file=sys.stderr)
        return [rows[prompt.id] for prompt in prompts]


def scored(
    study: Study,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[BenignResponse],
) -> list[BenignResponse]:
    """The rows with the likelihood of the held-back ones under the base.

    base must be bare: neither steered nor with an adapter.
    """
    params = study.params
    heldback = [row for row in rows if row.source == "heldback"]
    likelihoods = answer_likelihoods(
        base, tokenizer, heldback, params.prompting, params.runtime.batch_size
    )
    found = {row.id: value for row, value in zip(heldback, likelihoods, strict=True)}
    return [
        row.model_copy(update={"nll": found[row.id].nll, "nll_tokens": found[row.id].tokens})
        if row.id in found
        else row
        for row in rows
    ]
