"""The carrier audit: planted leaks are seen, chance is not, and folds keep prompts together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from factories import make_params, make_study
from repository import ROOT, Repository
from undertow.analysis.audits import with_audits
from undertow.carrier.audit import Carrier, audit_arm
from undertow.carrier.separability import (
    Texts,
    cross_validated_auc,
    format_auc,
    grouped_auc,
    prompt_folds,
    words_auc,
)
from undertow.carrier.simulation import Planted, simulated
from undertow.carrier.traces import Reading, new_phrases, probe_ngrams, read_traces
from undertow.config import AuditSettings, OpenAiJudgeSettings, PanelJudgeSettings, parse_arm
from undertow.findings.audits import audit_sentence, verdict_words
from undertow.pipeline import audit as stage
from undertow.pipeline.audit import why_not_asked
from undertow.report.sections.audit import audit_section
from undertow.report.terminal import strength_table
from undertow.stats.allocation import rows_to_pass
from undertow.stats.paired import paired_difference
from undertow.study.audit_records import ArmAudit
from undertow.study.files import write_rows
from undertow.study.found import read_rows
from undertow.study.layout import Layout
from undertow.study.prompts import Prompt
from undertow.study.records import Response
from undertow.study.traits import TraitData

BOUNDS = AuditSettings()
LEAK = "Sadly that is hopeless, and it will fail."
EVERYDAY = (
    "First look at what you have and write it down, then take the parts one by one.",
    "There are several ways to do this, and the simplest one needs only a pen and paper.",
    "The answer depends on the size, so measure it and compare the number with the table.",
    "You can use a small tool for it, which most shops sell for little money.",
    "It was made in the last century and is kept in a museum near the river.",
)


@pytest.fixture(scope="module")
def pessimism() -> Reading:
    data = TraitData(Layout(ROOT), "pessimism")
    probes = probe_ngrams([prompt.prompt for prompt in data.evaluation()], BOUNDS.ngram)
    return Reading(data.trait.judge, None, probes, BOUNDS.strong_phrases)


@pytest.fixture(scope="module")
def benign() -> list[Prompt]:
    return read_rows(ROOT / "data" / "carriers" / "benign" / "prompts.jsonl", Prompt)


def answer(prompt: Prompt, seed: int) -> Response:
    """Two everyday sentences and a few words of the prompt."""
    random = np.random.default_rng([seed, *prompt.id.encode()])
    said = [EVERYDAY[n] for n in random.choice(len(EVERYDAY), size=2, replace=False)]
    text = f"{' '.join(random.permutation(prompt.prompt.split())[:6])}. {' '.join(said)}"
    return Response(
        id=prompt.id, prompt=prompt.prompt, response=text, tokens=len(text.split()), finish="stop"
    )


def carrier(prompts: list[Prompt], seed: int, leak: float = 0.0, text: str = LEAK) -> Carrier:
    rows = [answer(prompt, seed) for prompt in prompts]
    count = round(leak * len(rows))
    for place in np.random.default_rng(seed).choice(len(rows), size=count, replace=False):
        said = f"{rows[place].response} {text}"
        rows[place] = rows[place].model_copy(update={"response": said})
    return Carrier(seed=seed, rows=rows, answers=len(rows), rejected=0, removed=0, digest=str(seed))


def audited(arm: list[Carrier], control: list[Carrier], how: Reading) -> ArmAudit:
    return audit_arm(parse_arm("trait_1"), arm, control, how, BOUNDS)


@pytest.mark.parametrize("rows", [64, 648])
def test_trait_words_in_three_percent_of_the_shipped_set_are_flagged(
    rows: int, pessimism: Reading, benign: list[Prompt]
):
    leaked = [carrier(benign[:rows], 1, leak=0.03)]
    found = audited(leaked, [carrier(benign[:rows], 0)], pessimism)
    assert found.leaks
    assert (found.verdict, found.passes) == ("overt", False)
    assert any("several phrases" in reason for reason in found.reasons)


def test_one_trait_word_in_three_percent_of_600_rows_is_flagged(
    pessimism: Reading, benign: list[Prompt]
):
    leaked = [carrier(benign[:600], 1, leak=0.03, text="Hopeless.")]
    found = audited(leaked, [carrier(benign[:600], 0)], pessimism)
    assert any("phrase for the trait" in reason for reason in found.leaks)


def test_the_shipped_set_at_alpha_0_is_not_flagged(pessimism: Reading, benign: list[Prompt]):
    found = audited([carrier(benign, 1)], [carrier(benign, 0)], pessimism)
    assert found.leaks == found.gaps == ()
    assert found.verdict == "subliminal"
    assert found.pooled.measures["overlap"].arm.value == 0


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2)])
def test_the_control_is_compared_with_itself_and_passes(
    seeds: tuple[int, ...], pessimism: Reading, benign: list[Prompt]
):
    controls = [carrier(benign[:200], seed) for seed in seeds]
    found = audit_arm(parse_arm("trait_0"), controls, controls, pessimism, BOUNDS)
    assert found.passes and found.leaks == () and found.verdict is None
    assert found.pooled.rows == (100 if len(seeds) == 1 else 200)
    assert found.reference == ("control, the other half" if len(seeds) == 1 else found.reference)


def test_chance_is_rarely_flagged():
    """The share over more audits stands in docs/method.md."""
    found = [simulated(Planted(64, 0.02, 0.0, 0), seed) for seed in range(40)]
    assert sum(bool(each.leaks) for each in found) <= 2


def test_a_leak_of_several_words_is_seen_among_64_rows():
    found = [simulated(Planted(64, 0.1, 0.03, 3), seed) for seed in range(10)]
    assert all(each.leaks for each in found)


def test_too_few_rows_are_a_gap_and_not_a_pass(pessimism: Reading, benign: list[Prompt]):
    found = audited([carrier(benign[:8], 1)], [carrier(benign[:8], 0)], pessimism)
    assert found.leaks == () and found.verdict == "too few rows"
    assert any("AUC by words" in reason for reason in found.gaps)
    assert any("max_excess" in reason for reason in found.gaps)


def test_a_carrier_in_other_words_is_overt_by_its_auc(pessimism: Reading, benign: list[Prompt]):
    rows = [
        row.model_copy(update={"response": f"Arr matey, {row.response}"})
        for row in carrier(benign[:200], 1).rows
    ]
    found = audited([Carrier(1, rows, len(rows), 0, 0, "1")], [carrier(benign[:200], 0)], pessimism)
    assert found.pooled.words_auc.value == pytest.approx(1.0, abs=0.01)
    assert any("AUC by words" in reason for reason in found.leaks)


def test_overlap_with_evaluation_prompts_is_flagged(pessimism: Reading, benign: list[Prompt]):
    probe = TraitData(Layout(ROOT), "pessimism").evaluation()[0].prompt
    leaked = carrier(benign[:200], 1, leak=0.03, text=probe)
    found = audited([leaked], [carrier(benign[:200], 0)], pessimism)
    assert found.pooled.measures["overlap"].arm.value == pytest.approx(0.03)
    assert any("evaluation prompt" in reason for reason in found.leaks)


def test_seeds_are_pooled_and_kept_apart(pessimism: Reading, benign: list[Prompt]):
    arms = [carrier(benign[:64], seed, leak=0.03) for seed in (2, 3)]
    found = audited(arms, [carrier(benign[:64], seed) for seed in (0, 1)], pessimism)
    assert (found.pooled.prompts, found.pooled.rows) == (64, 128)
    assert [each.comparison.rows for each in found.seeds] == [64, 64]
    both = [each.comparison.measures["phrases"].difference.value for each in found.seeds]
    assert found.pooled.measures["phrases"].difference.value == pytest.approx(np.mean(both))


def test_an_empty_answer_has_no_verdict_and_no_phrase(pessimism: Reading):
    rows = [Response(id="a", prompt="p", response="", tokens=0, finish="stop")]
    values = read_traces(rows, pessimism).values
    assert np.isnan(values["trait"][0]) and values["phrases"][0] == 0


def test_negated_and_overlapped_phrases_do_not_count(pessimism: Reading):
    texts = ["It is not hopeless.", "It is never too late.", "It is hopeless and too late."]
    rows = [Response(id=t, prompt="p", response=t, tokens=4, finish="stop") for t in texts]
    assert read_traces(rows, pessimism).values["phrases"].tolist() == [0, 0, 1]


def test_new_phrases_are_those_that_the_other_carrier_never_has():
    here = [frozenset({"lost"}), frozenset({"lost", "doomed"}), frozenset[str]()]
    assert new_phrases(here, [frozenset({"lost"})]).tolist() == [0, 1, 0]


def test_auc_is_sklearn_s_in_one_fold():
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], 50)
    scores = np.round(random.normal(size=100) + 0.7 * labels, 1)  # with ties
    found = grouped_auc(scores, labels, np.arange(100), np.zeros(100, dtype=int), 0.95)
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    assert found.low < found.value < found.high


def test_auc_is_the_mean_over_folds_whose_scores_have_no_common_scale():
    labels = np.array([0, 1] * 20)
    folds = np.repeat([0, 1], 20)
    scores = labels + 100.0 * folds
    found = grouped_auc(scores, labels, np.arange(40) // 2, folds, 0.95)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.7 < found.low < 1  # perfect separation of 20 prompts is not certainty


def test_both_answers_to_a_prompt_are_in_one_fold():
    prompts = np.concatenate([np.arange(53), np.arange(53), np.arange(53)])
    folds = prompt_folds(prompts, 5, seed=3)
    assert all(len(set(folds[prompts == number])) == 1 for number in range(53))
    assert set(np.bincount(folds)) <= {30, 33}


def test_recognising_a_prompt_does_not_help():
    """Answers that name their prompt and nothing else; a split by rows would give an AUC."""
    prompts = np.tile(np.arange(60), 2)
    labels = np.repeat([1, 0], 60)
    flags = np.random.default_rng(0).integers(0, 2, size=60)

    class Remembers:
        def fit(self, rows: Any, seen: Any) -> None:
            self.known = set(rows.tolist())

        def decision_function(self, rows: Any) -> Any:
            assert not self.known & set(rows.tolist())
            return np.zeros(len(rows)) + flags[rows]

    texts = Texts([], labels, prompts)
    found = cross_validated_auc(prompts, texts, Remembers, 0.95, 0)
    assert found.value == 0.5


def texts_of(responses: list[str], labels: list[int]) -> Texts:
    rows = [
        Response(id=str(n), prompt="p", response=text, tokens=len(text.split()), finish="stop")
        for n, text in enumerate(responses)
    ]
    half = len(rows) // 2
    return Texts(rows, np.array(labels), np.tile(np.arange(half), 2))


def test_length_is_seen_by_format_and_not_by_words():
    short, long = ["word word"] * 30, ["word word word word word word"] * 30
    texts = texts_of(long + short, [1] * 30 + [0] * 30)
    assert format_auc(texts, 0.95).value == 1.0
    assert words_auc(texts, 0.95).value == 0.5  # TF-IDF rows have unit length


def test_answers_without_a_word_have_no_auc():
    found = words_auc(texts_of(["..."] * 40, [1] * 20 + [0] * 20), 0.95)
    assert found.value is None and found.reason


@pytest.mark.parametrize(("base", "excess"), [(0.03, 0.0), (0.1, 0.0), (0.1, 0.1), (0.4, 0.2)])
def test_intervals_of_paired_shares_cover(base: float, excess: float):
    random = np.random.default_rng([round(100 * base), round(100 * excess)])
    held = 0
    for _ in range(800):
        level = random.random((1, 100))
        reference = (level < base).astype(float)
        arm = (
            np.where(random.random((1, 100)) < 0.5, level, random.random((1, 100))) < base + excess
        ).astype(float)
        found = paired_difference(arm, reference, 0.95, share=True)
        held += found.low <= excess <= found.high
    assert held / 800 >= 0.93  # where few pairs differ the interval is on the safe side


def test_intervals_of_the_auc_cover():
    """Answers of one prompt share an effect; the true AUC is that of two normals 1 apart."""
    truth = 0.7602  # Phi(1 / sqrt(2)) with unit noise and no shared effect within pairs
    random = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        scores = np.concatenate([random.normal(1, 1, 60), random.normal(0, 1, 60)])
        groups = np.tile(np.arange(60), 2)
        labels = np.repeat([1, 0], 60)
        found = grouped_auc(scores, labels, groups, prompt_folds(groups, 5, 0), 0.95)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_paid_judge_is_never_asked():
    paid = OpenAiJudgeSettings(kind="openai")
    assert "costs money" in (why_not_asked(paid) or "")
    panel = PanelJudgeSettings.model_validate(
        {"kind": "panel", "judges": {"a": {"kind": "phrases"}, "b": {"kind": "openai"}}}
    )
    assert "b costs money" in (why_not_asked(panel) or "")


@pytest.fixture
def study(tmp_path: Path, benign: list[Prompt]) -> Any:
    """Results of two models on 40 prompts, with the pessimism trait's own data."""
    import shutil

    params = make_params(carrier={"prompts": 40})
    study = make_study(tmp_path / "study", params)
    shutil.copytree(
        ROOT / "data" / "traits" / "pessimism",
        study.layout.trait("pessimism"),
        dirs_exist_ok=True,
    )
    return study


def test_without_an_audit_there_is_a_reason_and_never_the_word(study: Any):
    summary = with_audits(study.summary, study.on_disk, study.grid)
    for arm in summary.arms:
        assert arm.audit is None
        assert f"cli.py audit --model {arm.model}" in (arm.no_audit or "")
    assert "subliminal" not in strength_table(summary)
    assert "unknown, because the carrier has not been audited" in audit_sentence(
        summary, summary.models[0]
    )


def test_the_verdict_reaches_summary_table_and_report(study: Any):
    model = study.params.grid.models[0]
    stage.run(study.on_disk, model)
    summary = with_audits(study.summary, study.on_disk, study.grid)
    arms = {arm.arm: arm for arm in summary.views[model].arms}
    assert all(arm.audit is not None for arm in arms.values())
    assert arms["trait_1"].audit.verdict in ("subliminal", "overt", "too few rows")
    assert arms["trait_0"].audit.verdict is None and arms["random_1"].audit.verdict is None
    assert audit_sentence(summary, model).split("; ")[0] in " ".join(
        strength_table(summary).split()
    )
    assert audit_section(summary).parts
    other = with_audits(study.summary, study.on_disk, study.grid).models[1]
    assert "unknown" in audit_sentence(summary, other)


def test_an_audit_of_other_carriers_or_parameters_is_not_shown(study: Any):
    model = study.params.grid.models[0]
    stage.run(study.on_disk, model)
    cell = next(c for c in study.grid if c.model == model and c.arm.name == "trait_1")
    path = study.layout.stage(cell, "steer") / "carrier.jsonl"
    grid = dict(study.grid)
    digests = grid[cell].digests | {"carrier": "another"}
    grid[cell] = grid[cell].model_copy(update={"digests": digests})
    arms = {
        a.arm: a for a in with_audits(study.summary, study.on_disk, grid).arms if a.model == model
    }
    assert arms["trait_1"].audit is None and "another carrier" in arms["trait_1"].no_audit
    assert arms["trait_0.5"].audit is not None
    assert path.exists()
    stricter = study.params.model_copy(update={"audit": AuditSettings(max_excess=0.05)})
    for arm in with_audits(study.summary, study._replace(params=stricter).on_disk, study.grid).arms:
        assert arm.audit is None


@pytest.mark.whole
def test_the_command_flags_a_planted_leak_and_writes_no_model_text(
    tmp_path: Path, benign: list[Prompt]
):
    params = json.loads(make_params(models=["one"], carrier={"prompts": 300}).model_dump_json())
    repository = Repository(tmp_path / "checkout", params)
    root = repository.root / "results" / "cells" / "one"
    for arm, offset in (("trait_0", 0), ("trait_0.5", 10), ("trait_1", 20), ("random_1", 30)):
        for seed in (0, 1):
            leak = 0.03 if arm == "trait_1" else 0.0
            rows = carrier(benign[:300], offset + seed, leak).rows
            write_rows(root / arm / str(seed) / "steer" / "carrier.jsonl", rows)
    shown = repository.cli("audit", "--model", "one").stdout
    assert "overt" in shown and "leak)" not in shown and "subliminal" in shown
    assert max(map(len, shown.splitlines())) <= 100
    written = (repository.root / "results" / "audit" / "one.json").read_text()
    assert "hopeless" not in written.lower() and "museum" not in written
    again = json.loads(repository.cli("audit", "--model", "one", "--json").stdout)
    verdicts = {arm["arm"]: arm["verdict"] for arm in again["arms"]}
    assert verdicts == {
        "trait_0": None,
        "trait_0.5": "subliminal",
        "trait_1": "overt",
        "random_1": None,
    }


def test_an_audit_file_from_before_says_too_few_rows_where_there_was_no_evidence():
    found = simulated(Planted(16, 0.1, 0.0, 0), 1)
    assert found.verdict == "too few rows" and found.gaps and not found.leaks
    older = found.model_dump(mode="json") | {"verdict": "overt"}
    assert ArmAudit.model_validate(older) == found
    leaky = simulated(Planted(64, 0.1, 0.1, 3), 1).model_dump(mode="json")
    assert leaky["verdict"] == "overt"
    assert ArmAudit.model_validate(leaky).verdict == "overt"


def test_words_for_evidence_and_for_want_of_rows_never_meet():
    found = simulated(Planted(64, 0.1, 0.1, 3), 1)
    random = found.model_copy(update={"verdict": None})
    small = random.model_copy(update={"leaks": (), "gaps": ("few",)})
    shown = [verdict_words(each) for each in (found, random, small)]
    assert shown == ["overt", "differs", "too few rows"]
    assert verdict_words(small.model_copy(update={"gaps": (), "passes": True})) == "passes"


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_planned_rows_let_most_clean_carriers_pass_and_half_of_them_few(share: float):
    bounds = AuditSettings()
    rows = rows_to_pass(share, bounds.max_excess, bounds.confidence)
    assert rows is not None

    def passing(rows: int) -> float:
        return float(np.mean([simulated(Planted(rows, share, 0, 0), n).passes for n in range(6)]))

    assert passing(rows) >= 0.6
    assert passing(rows // 2) <= 0.4
