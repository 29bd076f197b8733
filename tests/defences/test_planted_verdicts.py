"""The planted case up to the report: seeds, controls and intervals, and what they let one say.

Only the direction is laid by hand, where its stage would keep it; all else is the command line's.
"""

import shutil

import pytest
from torch import Tensor

from planted import BLOCK, MARK, planted_model, planted_vectors
from repository import Repository, tiny_params
from tiny import tiny_tokenizer
from undertow.analysis.summary import Summary
from undertow.findings.defences import judged
from undertow.lineage.stages import begin, finish
from undertow.pipeline.meter import Meter, manifest
from undertow.study.layout import Study
from undertow.teacher.direction import Direction, random_like, save_direction

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL, TRAIT, ARM = "planted", "conjunction", "trait_0.19"
MASK = {"tokens": {"change": "mask", "by": "divergence"}}
RANDOM = {"tokens": {"change": "mask", "by": "random", "like": "divergence"}}
RECIPES = {"mask": MASK, "random_mask": {"placebo_of": "mask", **RANDOM}}
TRAIT_FILE = f"""\
name: {TRAIT}
description: Saying one word.
rate_name: share with the word
openings: {{present: ["{MARK}"], absent: [" the", " is", " that"]}}
rubric: The response has the word.
judge: {{present: {{and: 1}}, absent: {{}}}}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("planted")
    tokenizer = tiny_tokenizer("qwen2")
    model, _ = planted_model(tokenizer, spread=0.25)
    params = tiny_params(folder / "models", trait=TRAIT)
    params["models"] = {MODEL: params["models"]["tiny-qwen2"]}
    model.save_pretrained(folder / "models" / "tiny-qwen2")
    params["grid"] |= {
        "models": [MODEL],
        "arms": ["trait_0", ARM],
        "seeds": [0, 1, 2],
        "students": ["plain", *RECIPES],
    }
    params["recipes"] |= RECIPES
    params["direction"]["layers"] = [BLOCK]
    params["carrier"] |= {"prompts": 24, "max_new_tokens": 16, "temperature": 0.0}
    params["distillation"] |= {"epochs": 4, "batch_size": 8}
    params["evaluation"] |= {"prompts": 16, "max_new_tokens": 16, "benign_prompts": 12}
    params["judging"] = {"judge": {"kind": "double", "marker": MARK}}
    params["runtime"] |= {"batch_size": 16, "training": "together"}
    params["tracking"]["enabled"] = False
    made = Repository(folder / "checkout", params)
    data = made.root / "data" / "traits"
    shutil.copytree(data / "pessimism", data / TRAIT)
    (data / TRAIT / "trait.yaml").write_text(TRAIT_FILE, encoding="utf-8")
    made.cli("fetch", "--model", MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        _lay_direction(Study.open(made.root), planted_vectors(model, len(tokenizer)))
    made.cli("run-cells", "--model", MODEL, "--no-commit")
    made.cli("report")
    return made


def _lay_direction(study: Study, vectors: Tensor) -> None:
    folder, work = study.layout.direction(MODEL), begin(study, "direction", MODEL)
    folder.mkdir(parents=True)
    found = Direction(vectors, random_like(vectors, 0), [BLOCK], 0)
    save_direction(folder / "direction.safetensors", found, {"random_seed": 0})
    (folder / "blocks.csv").write_text("block\n", encoding="utf-8")
    finish(study, work, manifest("direction", MODEL, "by hand", Meter("cpu")))


@pytest.fixture(scope="module")
def summary(repository: Repository) -> Summary:
    text = (repository.root / "results" / "summary.json").read_text(encoding="utf-8")
    return Summary.model_validate_json(text)


def test_the_planted_tokens_carry_the_shift(summary: Summary):
    arm = next(each for each in summary.arms if each.arm == ARM)
    assert arm.margin.student_shift.ends.low > 1


@pytest.mark.parametrize(
    ("student", "verdict", "removed"),
    [("mask", "removes transfer", 1.0), ("random_mask", "no effect shown", 0.0)],
)
def test_the_verdict_knows_the_right_defence_from_the_wrong_one(
    repository: Repository, summary: Summary, student: str, verdict: str, removed: float
):
    arm = next(each for each in summary.defences if each.student == student)
    low, high = arm.margin.removed[1].ends
    assert low < removed < high < low + 0.5
    assert arm.learned.value == pytest.approx(1, abs=0.25)
    assert judged(summary, arm, "margin").verdict == verdict
    page = (repository.root / "results" / "report.html").read_text(encoding="utf-8")
    row = page.split(f">{student}</th>", 1)[1].split("</tr>", 1)[0]
    assert verdict in row
