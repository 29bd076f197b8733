"""What is asked alike is asked at once where the engine answers, and kept set by set."""

import pytest

from repository import Repository, tiny_params
from undertow.pipeline import reading
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.reading import Evaluated, Reader, Subject
from undertow.study.layout import Study
from undertow.study.traits import TraitData, side_effect_prompts

MODEL = "tiny-qwen2"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("at_once")
    return Study.open(Repository(folder / "checkout", tiny_params(folder / "models")).root)


@pytest.fixture(scope="module")
def loaded(study: Study) -> Loaded:
    return Shelf().load(study, MODEL)


def evaluated(study: Study, loaded: Loaded, identity: str, *, engine: bool) -> Evaluated:
    """By a subject of this identity, as on a CPU or as where the engine answers."""
    reader = Reader(study, *loaded, [Subject(identity, 0), None])
    if engine:
        reader._kept = None
    trait = TraitData(study.layout, study.params.trait)
    return reader.evaluation(trait, side_effect_prompts(study, trait))


def test_asked_at_once_the_answers_are_the_same(study: Study, loaded: Loaded):
    apart, at_once = (
        evaluated(study, loaded, str(engine), engine=engine) for engine in (False, True)
    )
    assert [row.response for row in at_once.responses[0]] == [
        row.response for row in apart.responses[0]
    ]
    assert at_once.benign == apart.benign
    assert [len(own) for own in at_once.benign] == [study.params.evaluation.benign_prompts, 0]
    assert [row.margin for row in at_once.responses[0]] == pytest.approx(
        [row.margin for row in apart.responses[0]], abs=1e-3
    )


def test_a_killed_run_asks_for_what_is_missing_alone(
    study: Study, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
):
    whole = evaluated(study, loaded, "whole", engine=True)
    generate, asked = reading.generate_together, list[int]()

    def dies(*args, **rest):
        yield next(generate(*args, **rest))
        raise KeyboardInterrupt

    def counted(model, tokenizer, prompts, asked_of, *rest):
        asked.append(sum(prompt.id not in asked_of[0].done for prompt in prompts))
        return generate(model, tokenizer, prompts, asked_of, *rest)

    smaller = study.params.runtime.model_copy(update={"batch_size": 3})
    params = study.params.model_copy(update={"runtime": smaller})
    study = study._replace(params=params)
    monkeypatch.setattr(reading, "generate_together", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluated(study, loaded, "killed", engine=True)
    monkeypatch.setattr(reading, "generate_together", counted)
    again = evaluated(study, loaded, "killed", engine=True)
    every = len(whole.responses[0]) + len(whole.benign[0])
    assert asked[0] == every - 3
    assert [row.response for row in again.responses[0]] == [
        row.response for row in whole.responses[0]
    ]
    assert again.benign == whole.benign


def test_sets_that_share_an_id_are_asked_apart(study: Study, loaded: Loaded):
    trait = TraitData(study.layout, study.params.trait)
    first = trait.evaluation()[0]
    others = side_effect_prompts(study, trait)
    clash = others._replace(
        heldback=[prompt.model_copy(update={"id": first.id}) for prompt in others.heldback[:1]]
    )
    reader = Reader(study, *loaded, [Subject("clash", 0)])
    reader._kept = None
    found = reader.evaluation(trait, clash)
    assert found.responses[0][0].prompt == first.prompt
    assert found.benign[0][0].prompt == others.heldback[0].prompt
