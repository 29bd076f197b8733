"""No result outlives the code that made it: dvc.yaml names all code of a stage, and DVC sees it."""

import json
import shutil

import pytest
import yaml

from imports import imported_by
from repository import ROOT, Repository, tiny_params
from undertow.lineage.stages import Node, cell_node, code_digest, model_node
from undertow.study.files import write_text
from undertow.study.layout import Study

# Code that a stage imports and that is no dependency of it, and why; what only this code imports
# is left out with it. The last part of a name may be a package.
LEFT_OUT = {
    "errors": "says what went wrong; a stage that failed has no result",
    "lineage": "hashes what a stage reads and writes, and changes none of it",
    "tracking": "shows results, and nothing reads it",
    "models.memory": "how many rows are computed at a time: no parameter of a result either",
    "models.processes": "which process of one training this is",
    "pipeline.meter": "what a stage cost, not what it found",
    "pipeline.readings": "keeps what was read until its stage has written it, whole or not at all",
    "study.audit_records": "the form of a record; reading one checks it",
    "study.records": "the form of a record; reading one checks it",
    "study.found": "reads a file whole or not at all",
    "study.files": "writes the bytes that it is given, and hashes them",
    "study.hub": "any place that yields the bytes of a hash will do",
    "study.layout": "where a file lies; dvc.yaml itself names these places",
    "study.results": "reads records back, all or none",
    "texts.addresses": "refuses an address or hides what is secret in it",
    "texts.yaml": "DVC's own parser, by which DVC compares parameters",
    "study.sources": "any place that yields the bytes of a hash will do",
}
# What a stage imports and does not compute with.
MATCHES = {"texts.phrases": "a trait's file holds rules, which this stage reads and never matches"}
COMPARES = {"stats.paired": "the audit compares arms with it; what is kept of a carrier does not"}
NOT_USED = {
    "fetch": MATCHES,
    "direction": MATCHES,
    "steer": MATCHES,
    "pass-on": MATCHES,
    "distill": COMPARES,
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Further seeds and arms of a stage differ from it by matrix and parameters alone: dvc.yaml merges
# the rest.
FURTHER = ("-control", "-random", "-adapter")
MERGED = {name: STAGES[name] for name in STAGES if name.endswith(FURTHER)}
STAGES = {name: STAGES[name] for name in STAGES if name not in MERGED}
ROUNDS = [name for name in STAGES if name.endswith("-round")]


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def needed(stage: str) -> set[str]:
    """Modules that a stage computes with, its own among them."""
    stage = stage.removesuffix("-round")
    left_out = LEFT_OUT | NOT_USED.get(stage, {})
    waiting, found = [f"undertow.pipeline.{stage.replace('-', '_')}"], set()
    while waiting:
        name = waiting.pop()
        short = name.removeprefix("undertow.")
        if name not in found and not any(inside(short, package) for package in left_out):
            found.add(name)
            waiting += imported_by(name)
    return found


def covered(module: str, deps: list[str]) -> bool:
    path = f"src/{module.replace('.', '/')}"
    return any(dep in (f"{path}.py", path) or path.startswith(f"{dep}/") for dep in deps)


@pytest.mark.parametrize("stage", MERGED)
def test_what_is_merged_reads_and_runs_what_its_stage_does(stage):
    own = STAGES[stage.rpartition("-")[0]]
    for part in ("cmd", "deps", "outs"):
        assert MERGED[stage][part] == own[part]
    assert set(MERGED[stage]["params"]) - set(own["params"]) <= {
        "adapters.${item.arm}.${item.model}"
    }
    assert set(own["params"]) <= set(MERGED[stage]["params"])


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_computes_with_is_among_its_deps(stage):
    deps = STAGES[stage]["deps"]
    missing = sorted(module for module in needed(stage) if not covered(module, deps))
    assert not missing, f"add their folders to the deps of {stage} in dvc.yaml: {missing}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_dep_names_code_that_the_stage_does_not_import(stage):
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    idle = [dep for dep in code if not any(covered(module, [dep]) for module in needed(stage))]
    assert not idle
    assert all((ROOT / dep).exists() for dep in code)


@pytest.mark.parametrize("stage", ROUNDS)
def test_a_later_round_depends_on_the_code_and_parameters_of_the_first(stage):
    first = STAGES[stage.removesuffix("-round")]
    later = json.loads(json.dumps(STAGES[stage]).replace("item.round.student", "item.student"))
    assert later["params"] == first["params"]
    assert later["cmd"] == first["cmd"]
    code = [[dep for dep in each["deps"] if dep.startswith("src/")] for each in (first, later)]
    assert code[0] == code[1]


def test_what_is_left_out_exists():
    known = [ROOT / "src" / "undertow" / name.replace(".", "/") for name in LEFT_OUT]
    assert all(path.is_dir() or path.with_suffix(".py").is_file() for path in known)


def test_a_folder_of_code_is_known_by_its_files_and_not_by_what_python_makes_of_them(tmp_path):
    write_text(tmp_path / "one.py", "1")
    write_text(tmp_path / "inner" / "page.html", "<p>")
    before = code_digest(tmp_path)
    write_text(tmp_path / "__pycache__" / "one.cpython-311.pyc", "compiled")
    assert code_digest(tmp_path) == before
    write_text(tmp_path / "inner" / "page.html", "<p>other")
    assert code_digest(tmp_path) != before


def nodes(study: Study) -> list[Node]:
    """Every stage of the grid but report, which has no matrix."""
    return [
        *(model_node(study, stage, model) for model in study.params.grid.models
          for stage in ("fetch", "direction", "audit")),
        *(cell_node(study, "steer", cell) for cell in study.params.cells()),
        *(cell_node(study, stage, cell) for cell in study.params.all_cells()
          for stage in ("distill", "judge")),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A study whose stages DVC all knows as they are: outputs without content, real code."""
    tmp_path = tmp_path_factory.mktemp("recorded")
    params = tiny_params(tmp_path / "models", grid={"models": ["tiny-llama2", "tiny-qwen2"],
        "arms": ["trait_0", "trait_1"], "seeds": [0], "students": ["plain", "brief"]},
        recipes={"plain": {}, "brief": {"epochs": 1}})  # fmt: skip
    repository = Repository(tmp_path / "study", params)
    (repository.root / "src").unlink()
    shutil.copytree(
        ROOT / "src",
        repository.root / "src",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    repository.init()
    for node in nodes(Study.open(repository.root)):
        for out in node.outs:
            path = repository.root / out
            names = (
                ("plain.json", "brief.json")
                if "bases" in out
                else ("carrier.jsonl", "benign.jsonl")
            )
            for file in (path,) if path.suffix else (path / name for name in names):
                write_text(file, "{}\n")
    for name in ("summary.json", "report.html", "metrics.json", "plots/tau.csv"):
        write_text(repository.root / "results" / name, "{}\n")
    repository.dvc("commit", "--force", "--quiet")
    return repository


def stale(repository: Repository) -> set[str]:
    """Stages that `dvc status` names, whatever their model and cell."""
    return {name.split("@")[0] for name in json.loads(repository.dvc("status", "--json"))}


EDITS = {
    "readouts/margin.py": {"direction", "steer", "distill"},
    "models/prompts.py": {"fetch", "direction", "steer", "distill"},
    "engine/sampling.py": {"steer", "distill"},
    "engine/decode.py": {"steer", "distill"},
    "student/packing.py": {"distill"},
    "judging/openai/rubrics.py": {"judge", "audit"},
    "report/tables.py": {"report"},
}


@pytest.mark.whole
def test_an_edit_of_code_makes_the_stages_stale_that_compute_with_it_and_no_other(recorded):
    assert stale(recorded) == set()
    for name, stages in EDITS.items():
        path = recorded.root / "src" / "undertow" / name
        before = path.read_text(encoding="utf-8")
        path.write_text(f"{before}\nedited = True\n", encoding="utf-8")
        assert stale(recorded) == stages, name
        path.write_text(before, encoding="utf-8")
    package = recorded.root / "src" / "undertow"
    write_text(package / "readouts" / "__pycache__" / "margin.pyc", "compiled")
    write_text(package / "tracking" / "views.py", "edited = True\n")
    assert stale(recorded) == set()


def test_an_edit_that_alters_no_result_is_accepted_without_a_run(recorded):
    path = recorded.root / "src" / "undertow" / "readouts" / "margin.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}# a comment\n", encoding="utf-8")
    assert "steer" in stale(recorded)
    recorded.dvc("commit", "--force", "--quiet")
    assert stale(recorded) == set()
