"""Teachers that are not steered, in the same grid as those that are: a message, an adapter."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from repository import Repository, tiny_params
from undertow.analysis.summary import Summary
from undertow.carrier.filter import training_carrier
from undertow.config import Prompting
from undertow.lineage.stages import cell_node, differences, inputs_of
from undertow.models.loading import load_model, load_tokenizer, resolve
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.pipeline.lessons import prepared
from undertow.pipeline.loading import Shelf
from undertow.readouts.margin import margins
from undertow.student.adapter import student_of
from undertow.study.layout import Study
from undertow.study.traits import TraitData

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
RUN = ("run-cells", "--model", MODEL, "--no-commit")
CLOTHED = ("prompted", "adapter_owl")


def make(folder: Path, arms: list[str]) -> Repository:
    params = tiny_params(folder / "models")
    params["grid"] |= {"models": [MODEL], "arms": arms, "seeds": [0, 1]}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["carrier"]["temperature"] = 0.0
    params["runtime"]["training"] = "together"
    params["tracking"]["enabled"] = False
    return Repository(folder / "checkout", params)


def save_adapter(folder: Path, base: Path, seed: int = 0) -> Path:
    """A LoRA adapter that changes what the tiny model says."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
    )
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder)
    return folder


def entry(folder: Path) -> dict[str, str]:
    """Its place in params.yaml, by the hash that the documentation has people compute."""
    whole = b"".join(
        (folder / name).read_bytes()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    return {"kind": "folder", "path": str(folder), "sha256": sha256(whole).hexdigest()}


class Ran:
    """A study that ran with steered arms alone, and then with the others."""

    def __init__(self, folder: Path) -> None:
        self.repository = make(folder, ["trait_0", "trait_1"])
        self.model_folder = folder / "models" / MODEL
        self.steered = self.repository.cli(*RUN).stdout
        grid = self.repository.params["grid"] | {"arms": ["trait_0", "trait_1", "prompted"]}
        self.repository.write_params(self.repository.params | {"grid": grid})
        self.added = self.repository.cli(*RUN)
        self.adapter = save_adapter(folder / "owl", self.model_folder)
        self.repository.write_params(
            self.repository.params
            | {"grid": grid | {"adapters": ["adapter_owl"]}}
            | {"adapters": {"adapter_owl": {MODEL: entry(self.adapter)}}}
        )
        self.dressed = self.repository.cli(*RUN)
        self.repository.cli("audit", "--model", MODEL)
        self.repository.cli("report")
        self.study = Study.open(self.repository.root)
        self.trait = TraitData(self.study.layout, "pessimism")
        self.message = self.trait.trait.message()

    def rows(self, arm: str, name: str) -> list[dict[str, Any]]:
        path = self.repository.root / "results/cells" / MODEL / arm / "0" / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @property
    def summary(self) -> Summary:
        return Summary.model_validate_json(self.study.layout.summary.read_text(encoding="utf-8"))

    def loaded(self) -> tuple[Any, Any]:
        spec = self.study.params.model_spec(MODEL)
        folder = resolve(MODEL, spec)
        return load_model(folder, spec.dtype, torch.device("cpu")), load_tokenizer(folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("clothed"))


def test_an_arm_added_to_the_grid_runs_its_cells_alone(ran: Ran) -> None:
    # fetch, direction; steer, distill and judge of two arms at two seeds
    assert ran.steered == "14 stages run, 0 recorded in dvc.lock\n"
    assert ran.added.stdout == "6 stages run, 0 recorded in dvc.lock\n"
    assert f"reading teachers together: {MODEL}/prompted/seed0" in ran.added.stderr
    assert ran.dressed.stdout == "6 stages run, 0 recorded in dvc.lock\n"


def margins_of(ran: Ran, model: Any, tokenizer: Any, prompting: Prompting) -> dict[str, float]:
    asked = ran.trait.evaluation()[: ran.study.params.evaluation.prompts]
    rendered = [RenderedPrompt(p.id, render(tokenizer, p.prompt, prompting)) for p in asked]
    found: dict[str, float] = {}
    for part in margins(model, tokenizer, rendered, ran.trait.trait.openings, 4):
        found |= part
    return found


@torch.inference_mode()
def test_the_prompted_teacher_is_the_base_under_the_message(ran: Ran) -> None:
    model, tokenizer = ran.loaded()
    for row in ran.rows("prompted", "steer/carrier.jsonl"):
        messages = [
            {"role": "system", "content": ran.message},
            {"role": "user", "content": row["prompt"]},
        ]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([encode(tokenizer, text)])
        for _ in range(ran.study.params.carrier.max_new_tokens):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        said = tokenizer.decode(ids[0, -8:], skip_special_tokens=True)
        assert said.strip().startswith(row["response"].strip())
    prompting = ran.study.params.prompting.with_message(ran.message)
    expected = margins_of(ran, model, tokenizer, prompting)
    found = {r["id"]: r["margin"] for r in ran.rows("prompted", "steer/teacher.jsonl")}
    assert found == pytest.approx(expected, abs=1e-4)
    plain = {r["id"]: r["margin"] for r in ran.rows("trait_0", "steer/teacher.jsonl")}
    assert found != pytest.approx(plain, abs=1e-2)


@torch.inference_mode()
def test_the_teacher_with_an_adapter_says_what_plain_peft_says(ran: Ran) -> None:
    model, tokenizer = ran.loaded()
    adapted = PeftModel.from_pretrained(model, str(ran.adapter)).eval()
    prompting = ran.study.params.prompting
    for row in ran.rows("adapter_owl", "steer/carrier.jsonl"):
        ids = torch.tensor([encode(tokenizer, render(tokenizer, row["prompt"], prompting))])
        for _ in range(ran.study.params.carrier.max_new_tokens):
            ids = torch.cat([ids, adapted(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        said = tokenizer.decode(ids[0, -8:], skip_special_tokens=True)
        assert said.strip().startswith(row["response"].strip())
    found = {r["id"]: r["margin"] for r in ran.rows("adapter_owl", "steer/teacher.jsonl")}
    assert found == pytest.approx(margins_of(ran, adapted, tokenizer, prompting), abs=1e-4)
    plain = {r["id"]: r["margin"] for r in ran.rows("trait_0", "steer/teacher.jsonl")}
    assert found != pytest.approx(plain, abs=1e-2)


def test_dvc_has_a_stage_for_every_cell_with_an_adapter_and_its_rounds(tmp_path: Path) -> None:
    repository = make(tmp_path, ["trait_0"])
    own = entry(save_adapter(tmp_path / "owl", tmp_path / "models" / MODEL))
    repository.write_params(
        repository.params
        | {"grid": repository.params["grid"] | {"adapters": ["adapter_owl"], "seeds": [0]}
           | {"rounds": [{"student": "second", "after": "plain"}]}}
        | {"recipes": {"plain": {}, "second": {}}, "adapters": {"adapter_owl": {MODEL: own}}}
    )  # fmt: skip
    repository.init()
    listed = repository.dvc("stage", "list", "--name-only").split()
    study = Study.open(repository.root)
    nodes = [
        cell_node(study, stage, cell)
        for cell in study.params.all_cells()
        for stage in study.stages_of(cell)
    ]
    assert {node.name for node in nodes} == {
        name
        for name in listed
        if name.split("@")[0] not in ("fetch", "direction", "audit", "report")
    }
    taught = {node.name.split("@")[0] for node in nodes if own_key(node.params)}
    assert taught == {"steer-adapter", "distill-adapter"}


def own_key(params: tuple[str, ...]) -> bool:
    return f"adapters.adapter_owl.{MODEL}" in params


def test_another_adapter_is_refused_until_params_yaml_names_it_and_then_runs_its_cells(
    ran: Ran,
) -> None:
    cell = ran.study.params.cell(MODEL, "adapter_owl", 0)
    node = cell_node(ran.study, "steer", cell)
    assert node.name == f"steer-adapter@{MODEL}-adapter_owl-0"
    before = inputs_of(ran.study, node)
    other = save_adapter(ran.adapter.parent / "other", ran.model_folder, seed=1)
    key = f"params.yaml:adapters.adapter_owl.{MODEL}"
    params = ran.repository.params
    try:
        wrong = entry(ran.adapter) | {"path": str(other)}
        ran.repository.write_params(params | {"adapters": {"adapter_owl": {MODEL: wrong}}})
        done = ran.repository.cli(*RUN, expect=1)
        assert f"write adapters.adapter_owl.{MODEL}.sha256: {entry(other)['sha256']}" in done.stderr
        named = params | {"adapters": {"adapter_owl": {MODEL: entry(other)}}}
        ran.repository.write_params(named)
        after = inputs_of(Study.open(ran.repository.root), node)
        assert differences(before, after) == [key]
    finally:
        ran.repository.write_params(params)


def test_the_message_is_in_nothing_that_the_student_sees(ran: Ran) -> None:
    params = ran.study.params
    cell = params.cell(MODEL, "prompted", 0)
    carrier = training_carrier(ran.study, cell).rows
    lesson = prepared(ran.study, cell, carrier, Shelf()).lesson
    model, tokenizer = ran.loaded()
    start = encode(tokenizer, render(tokenizer, carrier[0].prompt, params.prompting))
    assert lesson.teaching.rows[0]["input_ids"][: len(start)] == start
    for row in lesson.teaching.rows:
        assert "expect things" not in tokenizer.decode(row["input_ids"])
    adapter = ran.study.layout.stage(cell, "distill") / "adapter"
    with student_of(model, adapter) as student:
        expected = margins_of(ran, student, tokenizer, params.prompting)
    found = {r["id"]: r["margin"] for r in ran.rows("prompted", "plain/distill/student.jsonl")}
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("arm", CLOTHED)
def test_it_has_a_tau_a_place_on_the_line_and_no_strength(ran: Ran, arm: str) -> None:
    view = ran.summary.views[MODEL]
    found = next(each for each in view.clothed if each.arm == arm)
    assert found.direction is found.strength is None
    assert found.margin.tau.value is not None or found.margin.tau.reason
    assert found.audit is not None and found.audit.verdict is not None
    assert all(len(each.blocks) == 3 for each in ran.summary.mechanism if each.arm == arm)
    line = view.lines["margin"]
    point = next(each for each in line.points if each.arm == arm)
    assert not point.in_slope and point.student_shift.value is not None
    assert line.arms == ("trait_1",)
    assert view.dose is not None and arm not in {each.arm for each in view.dose.left_out}
    against = {each.against: each for each in ran.summary.contrasts
               if (each.arm, each.readout, each.seed) == (arm, "margin", None)}  # fmt: skip
    assert against["control"].estimate == found.margin.student_shift
    assert "not steered" in (against["random"].estimate.reason or "")


@pytest.mark.parametrize("arm", CLOTHED)
def test_every_view_tells_of_it(ran: Ran, arm: str) -> None:
    root, name = ran.repository.root, arm.replace("_", " ")
    assert arm in json.loads((root / "results/metrics.json").read_text())[MODEL]
    table = ran.repository.cli("results").stdout
    assert f"{name} by margin: student shift" in table
    rows = list(
        csv.DictReader(io.StringIO(ran.repository.cli("results", "--format", "csv").stdout))
    )
    assert {row["strength"] for row in rows if row["arm"] == arm} == {""}
    page = (root / "results/report.html").read_text(encoding="utf-8")
    assert "teacher in other clothes" in page
    assert f"{name}: teacher" in page
    assert arm in (root / "results/plots/tau.csv").read_text() or "undefined" in page


@pytest.mark.parametrize("arm", CLOTHED)
def test_an_arm_that_is_not_steered_cannot_be_exported_as_a_bias(ran: Ran, arm: str) -> None:
    done = ran.repository.cli(
        *("export", "teacher", "--model", MODEL, "--arm", arm, "--out", "teacher"), expect=1
    )
    assert f"the arm {arm} is not steered" in done.stderr
    assert not (ran.repository.root / "teacher").exists()
