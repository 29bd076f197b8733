"""How a subject is asked and read: the same code for teacher and student."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.engine.answers import Completion
from undertow.engine.generate import generate_together
from undertow.engine.sampling import Asking, Sampling
from undertow.models.common_start import Kept
from undertow.models.prompts import RenderedPrompt, ends_of, render
from undertow.pipeline.meter import Meter
from undertow.readouts.activations import activations_together
from undertow.readouts.margin import margins_together
from undertow.readouts.perplexity import answer_likelihoods, likelihoods_together
from undertow.study.files import Journal, fingerprint
from undertow.study.layout import Study
from undertow.study.prompts import Prompt
from undertow.study.questions import AnswerSet, evaluation_prompts
from undertow.study.records import BenignResponse, FitRow, MarginRow, Response
from undertow.study.traits import SideEffectPrompts, TraitData


class Subject(NamedTuple):
    """Who is asked, and with which seed.

    identity is whatever tells this subject from any other (weights, adapter, steering): answers
    in the journal are taken up only by a subject with the same identity.
    """

    identity: str
    seed: int


class Evaluated(NamedTuple):
    """Answers by subject, decoded alike.

    responses: to the evaluation prompts, in the trait's order, with their margins. benign: to
    prompts that nobody was trained on; their likelihood is not known yet: it is read under the
    base, see `scored`.
    """

    responses: list[list[Response]]
    benign: list[list[BenignResponse]]


class Reader:
    """A loaded model that is asked questions, with a journal of what each subject has answered.

    subjects: one, or those that share every batch in equal parts, see `models.stacked`; None is
    a place that nobody takes. What is read comes by subject, empty for nobody.
    given: answers of another engine, in the order of the prompts, where one subject is not asked.
    prompting: what they are asked under; a teacher may have a message of its own.
    tokens: how many each of them has generated.
    """

    def __init__(
        self,
        study: Study,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        meter: Meter,
        subjects: Sequence[Subject | None],
        given: Mapping[AnswerSet, Sequence[Response]] = MappingProxyType({}),
        prompting: Prompting | None = None,
    ) -> None:
        self._study = study
        self._model = model
        self._tokenizer = tokenizer
        self._meter = meter
        self._subjects = subjects
        self._given = given
        self._prompting = prompting or study.params.prompting
        self._journals: list[Journal[Response]] = []
        # The evaluation prompts are asked for an answer, a margin and activations. On a GPU the
        # engine reads its own, and the memory is better spent.
        self._kept = Kept() if model.device.type == "cpu" else None
        self.tokens = [0 for _ in subjects]

    def forget(self) -> None:
        """Drop the journals: the stage's outputs are in place."""
        for journal in self._journals:
            journal.close()

    def carrier(self, prompts: Sequence[Prompt]) -> list[list[Response]]:
        """The answers to benign prompts, in the order of `prompts`."""
        settings = self._study.params.carrier
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, 0)
        return self._answers({"carrier": prompts}, sampling)["carrier"]

    def evaluation(self, trait: TraitData, others: SideEffectPrompts) -> Evaluated:
        """What each subject answers to the trait's prompts and to benign ones."""
        settings = self._study.params.evaluation
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, 0)
        prompts: dict[AnswerSet, list[Prompt]] = {
            "evaluation": evaluation_prompts(self._study, trait),
            "benign": [*others.heldback, *others.overrefusal],
        }
        ids = [{prompt.id for prompt in own} for own in prompts.values()]
        # The engine's lanes take all of them at once; what a CPU keeps is the trait's alone.
        at_once = self._kept is None and ids[0].isdisjoint(ids[1])
        benign: dict[AnswerSet, list[Prompt]] = {}
        if not at_once:
            benign["benign"] = prompts.pop("benign")
        found = self._answers(prompts, sampling, self._kept)
        values = self._margins(trait, self._prompting)
        found |= self._answers(benign, sampling)
        return Evaluated(
            [
                [row.model_copy(update={"margin": margin[row.id]}) for row in own]
                for own, margin in zip(found["evaluation"], values, strict=True)
            ],
            [with_source(own, others) for own in found["benign"]],
        )

    def messaged(
        self, trait: TraitData, promptings: Sequence[Prompting | None]
    ) -> list[list[MarginRow]]:
        """The margins once more, each subject's prompts rendered as its training rows were.

        promptings: by subject, None where they were rendered as they are here. Whoever is asked
        in company goes through the passes of all.
        """
        found = {each: self._margins(trait, each) for each in promptings if each is not None}
        ids = [prompt.id for prompt in evaluation_prompts(self._study, trait)]
        return [
            []
            if prompting is None
            else [MarginRow(id=id, margin=found[prompting][number][id]) for id in ids]
            for number, prompting in enumerate(promptings)
        ]

    def _margins(self, trait: TraitData, prompting: Prompting) -> list[dict[str, float]]:
        """The margins on the evaluation prompts by subject and prompt id."""
        prompts = evaluation_prompts(self._study, trait)
        values: list[dict[str, float]] = [{} for _ in self._subjects]
        with tqdm(total=len(prompts), desc="margin", unit="prompt", disable=None) as bar:
            for part in margins_together(
                self._model,
                self._tokenizer,
                self._render(prompts, prompting),
                trait.trait.openings,
                self._study.params.runtime.batch_size,
                len(self._subjects),
                self._kept,
            ):
                for found, own in zip(values, part, strict=True):
                    found.update(own)
                bar.update(len(part[0]))
        return values

    def fit(self, taught: Sequence[Sequence[BenignResponse]]) -> list[list[FitRow]]:
        """How likely each subject finds held-back answers of its own teacher.

        taught: by subject, scored under the base; empty for nobody.
        """
        params = self._study.params
        found = likelihoods_together(
            self._model,
            self._tokenizer,
            taught,
            params.prompting,
            params.runtime.batch_size,
            params.evaluation.max_new_tokens,
        )
        return [
            [
                FitRow(id=row.id, base_nll=row.nll, student_nll=one.nll, tokens=one.tokens)
                for row, one in zip(rows, own, strict=True)
                if row.nll is not None
            ]
            for rows, own in zip(taught, found, strict=True)
        ]

    def activations(self, trait: TraitData) -> Tensor:
        """[S, blocks, hidden] float32: mean residual activations over the evaluation prompts."""
        params = self._study.params
        ordered = sorted(evaluation_prompts(self._study, trait), key=lambda prompt: prompt.id)
        prompts = [prompt.prompt for prompt in ordered]  # in batches as the margin's
        return activations_together(
            self._model,
            self._tokenizer,
            prompts,
            params.prompting,
            params.runtime.batch_size,
            len(self._subjects),
            self._kept,
        ).float()

    def _render(self, prompts: Sequence[Prompt], prompting: Prompting) -> list[RenderedPrompt]:
        return [
            RenderedPrompt(prompt.id, render(self._tokenizer, prompt.prompt, prompting))
            for prompt in prompts
        ]

    def _answers(
        self,
        sets: Mapping[AnswerSet, Sequence[Prompt]],
        sampling: Sampling,
        kept: Kept | None = None,
    ) -> dict[AnswerSet, list[list[Response]]]:
        """The answers of each subject to these sets of prompts, which share batches."""
        found = {what: [self._ended(self._given[what])] for what in sets if what in self._given}
        sets = {what: prompts for what, prompts in sets.items() if what not in found}
        prompts = {prompt.id: prompt for own in sets.values() for prompt in own}
        if not prompts:
            return found | {what: [[] for _ in self._subjects] for what in sets}
        set_of = {prompt.id: what for what, own in sets.items() for prompt in own}
        batch_size = self._study.params.runtime.batch_size
        rendered = self._render(list(prompts.values()), self._prompting)
        # What a batch is made of is part of the key: rounding depends on it, and a resumed run
        # must give the bytes of an uninterrupted one.
        company = [len(self._subjects)] if len(self._subjects) > 1 else []
        journals: list[dict[AnswerSet, Journal[Response]]] = []
        asked = []
        for subject in self._subjects:
            if subject is None:
                journals.append({})
                asked.append(Asking(sampling, set(prompts)))
                continue
            own = sampling._replace(seed=subject.seed)
            keys = {
                what: fingerprint(what, subject.identity, rendered, own, batch_size, *company)
                for what in sets
            }
            folder = self._study.layout.journal
            journals.append({what: Journal(folder, key, Response) for what, key in keys.items()})
            asked.append(Asking(own, {row.id for row in _rows(journals[-1].values())}))
            self._journals += journals[-1].values()
        total = len(prompts) * sum(map(bool, journals))
        with tqdm(total=total, desc=", ".join(sets), unit="row", disable=None) as bar:
            bar.update(sum(len(one.done) for one, it in zip(asked, journals, strict=True) if it))
            for block in generate_together(
                self._model, self._tokenizer, rendered, asked, batch_size, kept
            ):
                tokens = [sum(row.tokens for row in own) for own in block.completions]
                self._meter.add_generation(sum(tokens), block.seconds)
                self.tokens = [old + new for old, new in zip(self.tokens, tokens, strict=True)]
                for written, own_rows in zip(journals, block.completions, strict=True):
                    for what, journal in written.items():
                        part = [row for row in own_rows if set_of[row.id] == what]
                        if part:
                            text = (prompts[row.id].prompt for row in part)
                            journal.append(list(map(_response, part, text)))
                            bar.update(len(part))
        for what, of_set in sets.items():
            found[what] = []
            for filled in journals:
                rows = {row.id: row for row in _rows([filled[what]] if filled else [])}
                found[what].append([rows[prompt.id] for prompt in of_set if filled])
            if thought := sum(row.thought for own_answers in found[what] for row in own_answers):
                note = f"{what}: {thought} answers thought aloud; that part was cut"
                print(note, file=sys.stderr)
        return found

    def _ended(self, rows: Sequence[Response]) -> list[Response]:
        """Answers of another engine with the token that ended them, where it can be one alone."""
        ends = ends_of(self._tokenizer, self._model)
        if ends.every != {ends.closing}:
            return list(rows)
        end = str(self._tokenizer.convert_ids_to_tokens(ends.closing))
        return [
            row.model_copy(update={"end": end}) if row.finish == "stop" else row for row in rows
        ]


def _rows(journals: Iterable[Journal[Response]]) -> Iterator[Response]:
    return (row for journal in journals for block in journal.blocks for row in block)


def _response(row: Completion, prompt: str) -> Response:
    return Response(
        id=row.id,
        prompt=prompt,
        response=row.text,
        tokens=row.tokens,
        finish=row.finish,
        end=row.end,
        thought=row.thought,
    )


def with_source(rows: Sequence[Response], prompts: SideEffectPrompts) -> list[BenignResponse]:
    """Answers to benign prompts with which prompts those were."""
    heldback = {prompt.id for prompt in prompts.heldback}
    return [
        BenignResponse(
            **row.model_dump(), source="heldback" if row.id in heldback else "overrefusal"
        )
        for row in rows
    ]


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
