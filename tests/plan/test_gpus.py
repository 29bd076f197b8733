"""plan --gpus: wall time by the driver's rule at the plan's speeds, and where more stop helping."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from repository import Repository, tiny_params
from undertow.plan.costs import grid_cost
from undertow.plan.gpus import SIZES, GpuPlan, describe_gpus, gpu_plan
from undertow.plan.speeds import TABLE
from undertow.study.files import write_json
from undertow.study.layout import Study
from undertow.study.records import Costs, Manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The preset paper, whose two models are in the shipped table, without results."""
    return opened(tmp_path_factory.mktemp("paper"), "paper")


def opened(root: Path, preset: str = "small", rounds: Sequence[Mapping[str, str]] = ()) -> Study:
    """A preset without results; rounds: added to it, of the plain recipe."""
    params = yaml.safe_load((ROOT / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
    params["grid"]["rounds"] = list(rounds)
    params["recipes"] |= {one["student"]: {} for one in rounds}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in ("data", "dvc.yaml", "src"):
        (root / name).symlink_to(ROOT / name)
    return Study.open(root)


@pytest.fixture(scope="module")
def planned(paper: Study) -> GpuPlan:
    return gpu_plan(paper, 8)


def test_one_gpu_takes_the_device_hours_and_what_each_base_starts_with(
    paper: Study, planned: GpuPlan
):
    hours = grid_cost(paper, None).hours
    assert hours is not None
    one = planned.table[0]
    # Each base is begun once, or again for students of the other one's teachers.
    assert hours * 3600 < one.seconds < hours * 3600 + 4 * 60
    assert (one.gpus, one.speedup, one.busy) == (1, 1.0, 1.0)


def test_more_gpus_are_faster_until_the_longest_chain(planned: GpuPlan):
    seconds = [one.seconds for one in planned.table]
    assert [one.gpus for one in planned.table] == list(SIZES)
    assert seconds == sorted(seconds, reverse=True)
    two, eight = planned.table[1], planned.table[3]
    assert planned.asked == eight
    assert two.speedup > 1.9 and eight.speedup > 7
    assert planned.chain_seconds is not None
    assert seconds[-1] >= planned.chain_seconds
    assert [link.stage for link in planned.chain] == ["start and direction", "steer", "distill"]
    assert planned.chain_seconds == pytest.approx(sum(one.seconds for one in planned.chain))
    # No more of them than there are cells to work on at once.
    assert planned.enough is not None and 64 < planned.enough <= planned.cells


def test_rounds_make_the_chain_longer(planned: GpuPlan, tmp_path: Path):
    rounds = [{"student": "second", "after": "plain"}, {"student": "third", "after": "second"}]
    found = gpu_plan(opened(tmp_path, "paper", rounds), 1000)
    assert {link.stage: link.times for link in found.chain} == {
        "start and direction": 1,
        "steer": 1,
        "distill": 3,
        "pass-on": 2,
    }
    assert planned.chain_seconds and found.chain_seconds and found.asked
    assert found.chain_seconds > 2 * planned.chain_seconds
    assert found.asked.seconds >= found.chain_seconds
    assert "3 x distill" in describe_gpus(found)


def test_one_gpu_takes_every_model_s_start_and_all_of_its_cells(tmp_path: Path):
    found = gpu_plan(opened(tmp_path, "paper-accept"), 1)
    assert found.asked is not None and found.chain_seconds is not None
    # Of one model, whose cells go one after the other, the chain is a part.
    assert found.asked.seconds > found.chain_seconds > (TABLE[0].start_seconds or 0)


def test_people_read_one_number_and_its_reason(planned: GpuPlan):
    first, second, *_ = describe_gpus(planned).splitlines()
    assert first.startswith("8 GPUs: about ") and "times as fast as one" in first
    assert second.startswith(f"More than {planned.enough} stop helping: the longest chain takes")
    assert "one NVIDIA H200" in describe_gpus(planned)


def test_own_cells_are_planned_with_at_their_own_speed(tmp_path: Path):
    study = opened(tmp_path)
    for model in study.params.grid.models:
        cell = study.params.cell(model, "trait_1", 0)
        ran(study, study.layout.stage(cell, "steer"), load_seconds=30, tokens_generated=5000)
        ran(study, study.layout.stage(cell, "distill"), tokens_trained=4000)
        ran(study, study.layout.direction(model))
    found = gpu_plan(study, 2)
    assert found.asked is not None and found.asked.seconds < found.table[0].seconds
    assert found.chain[0].model_dump() == {
        "stage": "start and direction",
        "times": 1,
        "seconds": 30 + 60,
    }
    assert "this study's own cells, on cuda" in describe_gpus(found)


def ran(study: Study, folder: Path, **costs: float) -> None:
    """A stage that has run, as its manifest says."""
    made = Costs(
        seconds=60,
        device="cuda",
        peak_memory_bytes=1,
        generated_per_second=100,
        trained_per_second=200,
        **costs,
    )
    write_json(
        folder / "manifest.json",
        Manifest(stage="one", subject="a cell", command="run", costs=made, versions={}),
    )


def test_nothing_is_guessed_and_the_command_says_so(tmp_path: Path):
    repository = Repository(tmp_path / "checkout", tiny_params(tmp_path / "models"))
    done = repository.cli("plan", "--gpus", "8")
    assert "unknown: no measured speed for tiny-llama2, tiny-qwen2" in done.stdout
    found = GpuPlan.model_validate_json(repository.cli("plan", "--gpus", "8", "--json").stdout)
    assert found.asked is None and found.table == ()
    repository.cli("plan", "--gpus", "0", expect=2)
