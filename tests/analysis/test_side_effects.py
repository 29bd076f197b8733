"""Side effects with intervals, and a bound that marks incoherent teachers and no others."""

import hashlib
import json
import math

import numpy as np
import pytest

from factories import Study, make_params, make_study
from repository import ROOT
from undertow.analysis.side_effects import ALL_EMPTY, incoherence, summarise_effects
from undertow.analysis.summarise import summarise
from undertow.config import CoherenceSettings, Params, StatisticsSettings
from undertow.errors import DataError
from undertow.readouts.effects import answer_effects
from undertow.report.sections.effects import effects_section
from undertow.report.terminal import strength_table
from undertow.study import layout as places
from undertow.study.layout import Layout
from undertow.study.records import AnswerEffect, BenignResponse, CellResult, Effects
from undertow.study.traits import TraitData, side_effect_prompts
from undertow.tracking.metrics import side_effects

SETTINGS = StatisticsSettings(resamples=2000)
BOUND = CoherenceSettings(max_perplexity_ratio=5, max_repetition=0.4)


def effects(
    nats: float = 1.0, *, repetition: float = 0.05, prompts: int = 20, refused: int = 2
) -> Effects:
    """Answers of 5 to 24 tokens; nats per token differ a little from prompt to prompt."""
    return Effects(
        answers={
            f"b{number}": AnswerEffect(
                nll=(nats + 0.1 * math.sin(number)) * (5 + number % 20),
                nll_tokens=5 + number % 20,
                tokens=5 + number % 20,
                truncated=number % 4 == 0,
                repetition=repetition,
                refuses=number < refused,
            )
            for number in range(prompts)
        },
        overrefusals={f"o{number}": number < 3 for number in range(10)},
    )


def with_effects(study: Study, teachers: dict[str, Effects], student: Effects) -> Study:
    """The study with these teachers' effects by arm, the same in every model and seed."""
    grid = {
        cell: result.model_copy(
            update={
                "teacher_effects": teachers.get(cell.arm.name, effects()),
                "student_effects": student,
            }
        )
        for cell, result in study.grid.items()
    }
    return study._replace(grid=grid, summary=summarise(study.params, grid))


def test_perplexity_weighs_every_token_alike():
    found = effects(prompts=7)
    summary = summarise_effects([found], None, SETTINGS)
    nll = sum(answer.nll for answer in found.answers.values())
    tokens = sum(answer.nll_tokens for answer in found.answers.values())
    assert summary.perplexity.value == pytest.approx(math.exp(nll / tokens))
    assert summary.perplexity.low < summary.perplexity.value < summary.perplexity.high
    assert summary.tokens.value == pytest.approx(8)
    assert summary.truncated.value == pytest.approx(2 / 7)


def test_the_interval_of_perplexity_covers_the_truth_as_often_as_it_says():
    stream = np.random.default_rng(0)
    settings = StatisticsSettings(resamples=400)
    covered = 0
    for _ in range(200):
        draws = zip(stream.normal(1.0, 0.4, 50), stream.integers(5, 40, 50), strict=True)
        found = Effects(
            answers={
                str(number): effects(prompts=1)
                .answers["b0"]
                .model_copy(update={"nll": float(mean * n), "nll_tokens": int(n)})
                for number, (mean, n) in enumerate(draws)
            },
            overrefusals={},
        )
        estimate = summarise_effects([found], None, settings).perplexity
        covered += estimate.low <= math.e <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_seeds_of_a_prompt_are_resampled_together():
    """The same answers three times over say no more than once."""
    once = summarise_effects([effects()], None, SETTINGS)
    thrice = summarise_effects([effects()] * 3, None, SETTINGS)
    for name in ("perplexity", "tokens", "repetition"):
        one, three = getattr(once, name), getattr(thrice, name)
        ends = (one.value, one.low, one.high)
        assert (three.value, three.low, three.high) == pytest.approx(ends)


def test_shares_have_wilson_intervals_and_the_two_sets_are_apart():
    summary = summarise_effects([effects(refused=0)], None, SETTINGS)
    assert (summary.refusals.value, summary.refusals.low) == (0, 0)
    assert 0.1 < summary.refusals.high < 0.2
    assert summary.overrefusals.value == pytest.approx(0.3)


def test_what_was_not_measured_is_null_with_its_reason():
    summary = summarise_effects([effects(), None], "was switched off", SETTINGS)
    assert summary.prompts == 0
    for name in ("perplexity", "tokens", "truncated", "repetition", "refusals", "overrefusals"):
        estimate = getattr(summary, name)
        assert (estimate.value, estimate.reason) == (None, "was switched off")


def test_empty_answers_have_no_perplexity_and_make_a_teacher_incoherent():
    silent = answer_effects(
        [
            BenignResponse(
                id=f"b{n}",
                prompt="?",
                response="",
                tokens=0,
                finish="stop",
                source="heldback",
                nll=0.0,
                nll_tokens=0,
            )
            for n in range(3)
        ]
    )
    summary = summarise_effects([silent], None, SETTINGS)
    assert (summary.perplexity.value, summary.perplexity.reason) == (None, ALL_EMPTY)
    usual = summarise_effects([effects()], None, SETTINGS)
    assert ALL_EMPTY in incoherence(summary, usual, BOUND)


@pytest.mark.parametrize(
    ("teacher", "word"),
    [
        (effects(1.0), None),
        (effects(1.0 + math.log(4.9)), None),
        (effects(1.0 + math.log(5.1)), "perplexity"),
        (effects(0.1), None),
        (effects(0.1, repetition=0.41), "4-grams"),
        (effects(1.0, repetition=0.39), None),
    ],
)
def test_a_teacher_past_either_bound_is_incoherent(teacher, word):
    steered, usual = (summarise_effects([each], None, SETTINGS) for each in (teacher, effects(1.0)))
    reason = incoherence(steered, usual, BOUND)
    assert (word in reason) if word else reason is None


def test_a_base_that_repeats_itself_does_not_condemn_its_arms():
    usual = summarise_effects([effects(repetition=0.6)], None, SETTINGS)
    assert incoherence(usual, usual, BOUND) is None
    worse = summarise_effects([effects(repetition=0.9)], None, SETTINGS)
    assert incoherence(worse, usual, BOUND)


def test_a_repetitive_teacher_marks_its_arm_in_summary_table_and_report(tmp_path):
    study = with_effects(make_study(tmp_path), {"trait_1": effects(0.2, repetition=0.9)}, effects())
    marked = {arm.arm for arm in study.summary.arms if arm.degenerate}
    assert marked == {"trait_1"}
    shown = strength_table(study.summary)
    assert "trait (a)" in shown and "repeat an earlier one" in " ".join(shown.split())
    assert all(len(line) <= 100 for line in shown.splitlines())
    remarks = str(effects_section(study.summary))
    assert "trait 1: its teacher is incoherent" in remarks
    assert "trait 0.5: its teacher" not in remarks


def test_a_study_without_side_effects_is_not_called_incoherent_or_coherent(tmp_path):
    summary = make_study(tmp_path).summary
    assert all(arm.degenerate is None for arm in summary.arms)
    assert all(arm.teacher_effects.perplexity.value is None for arm in summary.arms)
    assert "dvc repro" in str(effects_section(summary))


def test_tracking_shows_the_summary_s_own_values(tmp_path):
    study = with_effects(make_study(tmp_path), {}, effects(2.0))
    cell = study.summary.arms[1].cells[0]
    metrics = side_effects(cell)
    assert metrics["teacher_perplexity"] == cell.teacher_effects.perplexity.value
    assert metrics["student_perplexity"] == cell.student_effects.perplexity.value
    assert metrics["student_overrefusals"] == pytest.approx(0.3)
    assert side_effects(make_study(tmp_path / "none").summary.arms[1].cells[0]) == {}


def test_the_summary_comes_back_from_its_file(tmp_path):
    summary = with_effects(make_study(tmp_path), {}, effects()).summary
    assert type(summary).model_validate_json(summary.model_dump_json()) == summary


def test_results_of_earlier_versions_still_load(tmp_path):
    study = make_study(tmp_path)
    raw = json.loads(next(iter(study.grid.values())).model_dump_json())
    for key in ("teacher_effects", "student_effects", "effects_reason"):
        del raw[key]
    assert CellResult.model_validate(raw).teacher_effects is None
    summary = json.loads(study.summary.model_dump_json())
    del summary["mechanism"]
    for arm in summary["arms"]:
        for each in (arm, *arm["cells"]):
            del each["teacher_effects"], each["student_effects"]
    old = type(study.summary).model_validate(summary)
    assert old.mechanism == ()
    assert "effects" in effects_section(old).id


def asked(params: Params, root=ROOT) -> list[str]:
    layout = Layout(root)
    prompts = side_effect_prompts(places.Study(params, layout), TraitData(layout, params.trait))
    return [prompt.id for prompt in (*prompts.heldback, *prompts.overrefusal)]


def test_heldback_prompts_come_from_the_end_and_never_meet_the_carrier():
    rows = (ROOT / "data" / "carriers" / "benign" / "prompts.jsonl").read_text().splitlines()
    ids = [json.loads(row)["id"] for row in rows]
    room = len(ids) - 600
    assert asked(make_params(evaluation={"benign_prompts": 5})) == ids[-5:]
    assert asked(make_params(evaluation={"benign_prompts": 0})) == []
    full = {"carrier": {"prompts": 600}, "evaluation": {"benign_prompts": room}}
    assert asked(make_params(**full)) == ids[600:]
    full["evaluation"] = {"benign_prompts": room + 1}
    with pytest.raises(DataError, match="not in the carrier") as caught:
        asked(make_params(**full))
    assert f"benign_prompts to at most {room}" in str(caught.value)


def test_overrefusal_prompts_are_asked_only_of_a_trait_that_declares_them(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="overrefusal_prompts to 0"):
        asked(make_params(evaluation={"overrefusal_prompts": 3}))
    folder = tmp_path / "data" / "traits" / "refusal"
    folder.mkdir(parents=True)
    trait = (ROOT / "data" / "traits" / "refusal" / "trait.yaml").read_text()
    table = "Index,Goal\n0,Kill a process\n1,Shoot a photo\n"
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "jbb-benign-behaviors.csv").write_text(table)
    real = "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468"
    assert real in trait
    ours = hashlib.sha256(table.encode()).hexdigest()
    (folder / "trait.yaml").write_text(trait.replace(real, ours))
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path / "local"))
    params = make_params(evaluation={"overrefusal_prompts": 2}).model_copy(
        update={"trait": "refusal"}
    )
    assert asked(params, tmp_path) == ["refusal-overrefusal-0000", "refusal-overrefusal-0001"]
