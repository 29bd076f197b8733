"""A trait's skeleton is complete, and what is wrong or weak in a trait is named before a study."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from repository import ROOT, Repository, tiny_params
from undertow.errors import ConfigError, DataError
from undertow.models.blocks import blocks
from undertow.models.loading import load_model, resolve
from undertow.study.carriers import CarrierData
from undertow.study.layout import Layout, Study
from undertow.study.prompts import Prompt, read_prompts
from undertow.study.traits import Contrast, Openings, TraitData
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.measured import area, too_few
from undertow.vetting.model import check_model
from undertow.vetting.skeleton import write_skeleton
from undertow.vetting.wording import openings, wording
from undertow.vetting.written import Needed, Texts, read_texts

PESSIMISM = ROOT / "data" / "traits" / "pessimism"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    shutil.copytree(PESSIMISM, tmp_path / "data" / "traits" / "pessimism")
    shutil.copytree(ROOT / "data" / "carriers", tmp_path / "data" / "carriers")
    return Layout(tmp_path)


NEED = Needed(contrast=48, heldback=0, evaluation=50)


def found(layout: Layout, name: str = "pessimism") -> dict[str, TraitFinding]:
    data = TraitData(layout, name)
    benign = read_prompts(CarrierData(layout, "benign").file, Prompt)
    told = wording(layout, data.trait, read_texts(data), benign, NEED)
    return {each.name: each for each in told}


def rewrite(path: Path, change: object) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)  # type: ignore[operator]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_bundled_trait_has_nothing_wrong_or_weak_in_its_texts(layout: Layout) -> None:
    assert {name: each.found for name, each in found(layout).items() if each.state != "ok"} == {}


def test_a_skeleton_can_be_read_and_says_what_is_left_to_do(layout: Layout) -> None:
    folder = write_skeleton(layout, "hedging")
    told = found(layout, "hedging")
    assert {each.state for each in told.values()} <= {"wrong", "weak"}  # nothing of it is ok
    skeleton = told["skeleton"]
    for part in ("description, elicit, openings, rubric, judge", "contrast.jsonl (4 rows)"):
        assert part in skeleton.found
    contrast = told["contrast prompts"]
    assert contrast.state == "wrong" and contrast.found == "0 with the trait, 0 without"
    assert "at least 48 of each side to contrast.jsonl" in contrast.remedy
    assert "takes 48" in contrast.remedy
    assert "at least 50 to evaluation.jsonl" in told["evaluation prompts"].remedy
    assert "at least 16 of each side to heldback.jsonl" in told["heldback prompts"].remedy
    # Taking the mark out is not writing.
    for file in folder.iterdir():
        file.write_text(file.read_text(encoding="utf-8").replace("REPLACE ", ""), encoding="utf-8")
    assert found(layout, "hedging")["contrast prompts"].found == "0 with the trait, 0 without"
    assert "contrast.jsonl (4 rows)" in found(layout, "hedging")["skeleton"].found


def test_no_trait_is_written_where_the_bundled_ones_are_still_to_be_pulled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "traits.dvc").write_text("outs: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not here yet"):
        write_skeleton(Layout(tmp_path), "hedging")


def test_keys_that_cannot_be_used_are_listed_by_name(layout: Layout) -> None:
    file = write_skeleton(layout, "hedging") / "trait.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("rubric:", "rubrik:").replace("harmful: false", "harmful: no one"))
    with pytest.raises(DataError) as told:
        TraitData(layout, "hedging")
    for line in ("rubric: Field required", "rubrik: Extra inputs", "harmful: Input should be"):
        assert f"\n  {line}" in told.value.message
    assert "pydantic" not in str(told.value)


def test_prompts_that_a_stage_would_miss_are_wrong_and_fewer_than_advised_are_weak(
    layout: Layout,
) -> None:
    folder = layout.trait("pessimism")

    def fewer(rows: list[dict[str, str]]) -> None:
        del rows[94:]  # 47 of each side

    rewrite(folder / "contrast.jsonl", fewer)
    rewrite(folder / "heldback.jsonl", lambda rows: rows.clear())
    told = found(layout)
    assert told["contrast prompts"].state == "wrong"
    assert told["contrast prompts"].found == "47 with the trait, 47 without"
    assert told["heldback prompts"].state == "weak"  # only layers: auto reads them


def test_a_name_that_is_taken_or_cannot_be_is_refused(layout: Layout) -> None:
    for name in ("pessimism", "Not A Name", "../out"):
        with pytest.raises(ConfigError):
            write_skeleton(layout, name)


def test_a_prompt_in_both_sets_is_wrong_and_a_shared_run_of_words_is_weak(layout: Layout) -> None:
    folder = layout.trait("pessimism")
    asked = json.loads((folder / "contrast.jsonl").read_text().splitlines()[0])["prompt"]

    def same(rows: list[dict[str, str]]) -> None:
        rows[0]["prompt"] = asked

    def alike(rows: list[dict[str, str]]) -> None:
        rows[0]["prompt"] = "Say it: " + asked.split(". ", 1)[1]

    rewrite(folder / "evaluation.jsonl", alike)
    assert found(layout)["overlap"].state == "weak"
    rewrite(folder / "evaluation.jsonl", same)
    overlap = found(layout)["overlap"]
    assert overlap.state == "wrong"
    assert "pessimism-001" in overlap.found


def test_a_judge_that_is_wrong_on_labelled_rows_is_weak_with_its_count(layout: Layout) -> None:
    def turned(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row["label"] = not row["label"]

    rewrite(layout.trait("pessimism") / "labelled.jsonl", turned)
    told = found(layout)["judge, test"]
    assert told.state == "weak"
    assert "of 72 rows" in told.found


def test_wording_that_answers_would_repeat_is_weak(layout: Layout) -> None:
    def gloomy(rows: list[dict[str, str]]) -> None:
        for row in rows[:40]:
            row["prompt"] += " Is it hopeless?"

    rewrite(CarrierData(layout, "benign").file, gloomy)
    told = found(layout)["benign wording"]
    assert told.state == "weak"
    assert "hopeless" in told.found


def test_openings_that_begin_alike_or_differ_in_length_are_named() -> None:
    given = Openings(present=("It is", "It is bad now"), absent=("It is good", "All well"))
    named = {each.name: each for each in openings(given)}
    assert named["openings apart"].state == "wrong"
    assert "'It is bad now' begins with 'It is'" in named["openings apart"].found
    assert named["opening words"].state == "weak"


def test_too_few_held_back_prompts_make_no_auc_ok_and_the_study_s_prompts_are_read() -> None:
    few = Texts(Contrast(["a"] * 3, ["b"] * 3), Contrast(["c"] * 2, ["d"] * 2), [])
    remedy = too_few(few)
    assert remedy is not None and "at least 16 of each side" in remedy
    assert judged("separation", "AUC 1.00", "", few=remedy).state == "weak"
    assert too_few(few._replace(heldback=Contrast(["c"] * 16, ["d"] * 16))) is None
    assert few.first(Needed(contrast=2)).contrast == Contrast(["a"] * 2, ["b"] * 2)


def test_area_is_the_share_of_pairs_in_order_with_ties_as_half() -> None:
    high, low = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    assert area(high, low) == 1 and area(low, high) == 0
    assert area(low, low) == 0.5


def test_the_commands_write_a_trait_and_check_one_with_a_model(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "study", tiny_params(tmp_path / "models"))
    written = repository.cli("trait", "new", "hedging").stdout
    assert "trait check hedging" in written
    # Without a model that is fetched, the texts alone; with one, what it shows of the trait.
    alone = json.loads(repository.cli("trait", "check", "hedging", "--json", expect=3).stdout)
    assert alone[0]["state"] == "wrong"
    assert alone[-1]["state"] == "unknown" and alone[-1]["found"] == "no model was loaded"
    unfetched = json.loads(repository.cli("trait", "check", "pessimism", "--json").stdout)
    assert unfetched[-1]["state"] == "unknown" and "fetch" in unfetched[-1]["remedy"]
    texts = repository.cli("trait", "check", "pessimism", "--texts-only")
    assert "only texts were read" in texts.stdout and texts.stderr == ""
    both = ("trait", "check", "pessimism", "--texts-only", "--model", "tiny-qwen2")
    repository.cli(*both, expect=2)
    done = repository.cli("trait", "check", "pessimism", "--model", "tiny-qwen2", "--json")
    named = {each["name"]: each for each in json.loads(done.stdout)}
    assert {"opening tokens", "separation", "margin", "headroom"} <= set(named)
    assert "by block, AUC" in named["separation"]["found"]


def test_model_check_names_prompt_end_engine_blocks_and_memory(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "study", tiny_params(tmp_path / "models"))
    found = check_model(Study.open(repository.root), "tiny-qwen2")
    for fact in ("a prompt is", "an answer ends at", "answers on a GPU", "blocks of", "GiB"):
        assert fact in found.lines()
    assert "What is the capital of France?" in found.prompt
    spec = Study.open(repository.root).params.model_spec("tiny-qwen2")
    model = load_model(resolve("tiny-qwen2", spec), spec.dtype, torch.device("cpu"))
    assert found.parameters == sum(each.numel() for each in model.parameters())
    assert found.blocks == len(blocks(model))
