"""run-cells --ray: two nodes of one machine give what one process gives, and lose nothing."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repository import ROOT, Repository, tiny_params
from undertow.cluster.parcels import pack
from undertow.cluster.places import Need, actor, connected, end, need_of, places

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = pytest.mark.timeout(600)
MODELS = ("tiny-llama2", "tiny-qwen2")
GRID = ("--model", MODELS[0], "--model", MODELS[1], "--no-commit")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


def make(folder: Path, models: Path) -> Repository:
    """Two models, two arms; a plain student, one of the other model, and one more round."""
    params = tiny_params(models)
    params["grid"] |= {"arms": ["trait_0", "trait_1"], "students": ["plain", "cross"]}
    params["grid"]["rounds"] = [{"student": "second", "after": "plain"}]
    other = dict(zip(MODELS, reversed(MODELS), strict=True))
    params["recipes"] = {
        "plain": {},
        "cross": {"base": other, "epochs": 1},
        "second": {"epochs": 1},
    }
    params["tracking"]["enabled"] = False
    return Repository(folder, params)


def produced(root: Path) -> dict[str, Any]:
    """Every result file but the manifests, and cell.json without its costs."""
    found: dict[str, Any] = {}
    for path in sorted((root / "results").rglob("*")):
        if path.is_dir() or path.name.endswith("manifest.json"):
            continue
        name = path.relative_to(root).as_posix()
        found[name] = path.read_bytes()
        if path.name == "cell.json":
            found[name] = {k: v for k, v in json.loads(found[name]).items() if k != "costs"}
    return found


def events(text: str, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    return [event for event in found if event["event"] == kind]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without places, and two nodes with one each."""
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args=NODE | {"num_cpus": 0}, shutdown_at_exit=True
    )
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The grid, model by model in one process each."""
    folder = tmp_path_factory.mktemp("alone")
    repository = make(folder / "checkout", folder / "models")
    for model in (*MODELS, MODELS[0]):
        repository.cli("run-cells", "--model", model, "--no-commit")
    return repository


def like(alone: Repository, folder: Path) -> Repository:
    return make(folder / "checkout", alone.root.parent / "models")


STAGES = 2 * 2 + 4 + 2 * 8 + 3 * 4  # of models, of teachers, of students, of a second round


def test_killed_nodes_and_a_killed_driver_lose_nothing_and_change_nothing(
    alone: Repository, cluster: Any, tmp_path: Path
):
    repository = like(alone, tmp_path)
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    command = ("run-cells", *GRID, "--ray", cluster.address, "--json")
    draws = random.Random(3)
    process = repository.start(*command)
    assert process.stdout is not None
    said = []
    finished, kills, next_kill = 0, 0, draws.randint(2, 5)
    for line in process.stdout:
        said.append(line)
        finished += json.loads(line)["event"] == "finished"
        if kills < 2 and finished >= next_kill:
            cluster.remove_node(nodes.pop(draws.randrange(2)))
            nodes.append(cluster.add_node(**NODE))
            kills, next_kill = kills + 1, finished + draws.randint(2, 4)
        elif kills == 2 and finished >= next_kill + 2:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    assert kills == 2
    first = {event["stage"] for event in events("".join(said), "finished")}

    done = repository.cli(*command)
    second = [event["stage"] for event in events(done.stdout, "finished")]
    # What the first driver had said to be finished is not run again.
    assert first.isdisjoint(second)
    assert len(second) == len(set(second))
    assert produced(repository.root) == produced(alone.root)
    workers = events(done.stdout, "worker")
    assert sum(one["jobs"] for one in workers) == len(second)
    assert all(0 < one["busy_seconds"] <= one["span_seconds"] for one in workers)
    kept = json.loads((repository.root / ".undertow" / "cluster" / "usage.json").read_text())
    assert kept["cells_seconds"] >= max(one["cells_busy_seconds"] for one in workers) > 0
    assert events(repository.cli(*command).stdout, "ended")[0]["ran"] == 0


def test_a_local_cluster_needs_no_address_and_dvc_finds_everything_up_to_date(
    alone: Repository, tmp_path: Path
):
    repository = like(alone, tmp_path)
    repository.init()
    home = tmp_path / "home"
    home.mkdir()
    repository.extra_environment = {"HOME": str(home)}
    models = ("--model", MODELS[0], "--model", MODELS[1])
    done = repository.cli("run-cells", *models, "--ray", "local", "--actors", "2")
    assert done.stdout == f"{STAGES} stages run, {STAGES} recorded in dvc.lock\n"
    assert list(home.rglob("*token*")) == []
    assert produced(repository.root) == produced(alone.root)
    found = json.loads(repository.dvc("status", "--json"))
    assert [name for name in found if not name.startswith(("report", "audit@"))] == []


def test_what_the_cluster_has_not_got_is_said_at_once(alone: Repository, tmp_path: Path):
    repository = like(alone, tmp_path)
    started = time.monotonic()
    done = repository.cli("run-cells", *GRID, "--ray", "local", "--threads", "999", expect=1)
    assert "the cluster holds 0 actors of 999 CPUs each" in done.stderr
    assert time.monotonic() - started < 60
    done = repository.cli("run-cells", *GRID, "--actors", "2", expect=1)
    assert "need --ray" in done.stderr


def test_ray_is_started_with_every_gpu_in_sight(alone: Repository, tmp_path: Path):
    repository = like(alone, tmp_path / "one")
    fake = tmp_path / "site" / "ray" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text(
        "import os\ndef init(**_):\n"
        "    raise RuntimeError(os.environ.get('CUDA_VISIBLE_DEVICES'))\n"
    )
    path = os.pathsep.join([str(fake.parents[1]), os.environ.get("PYTHONPATH", "")])
    repository.extra_environment = {"PYTHONPATH": path}
    process = repository.start("run-cells", *GRID, "--ray", "local")
    assert "no Ray cluster answers at local: None" in process.communicate()[1]


def test_each_worker_sees_a_gpu_of_its_own(cluster: Any):
    cluster.add_node(**NODE | {"num_cpus": 2, "num_gpus": 2})
    with connected(cluster.address) as ray:
        need = need_of(ray, "auto", None, None)
        assert need == Need(gpus=1, threads=1) and places(ray, need) == 2
        shared = pack(ROOT, ["params.yaml", "dvc.yaml"])
        workers = [actor(ray, need, shared) for _ in range(2)]
        assert sorted(here.gpus for here in ray.get([one.hello.remote() for one in workers])) == [
            "0",
            "1",
        ]
        end(ray, workers)


def test_students_that_are_trained_together_come_back_one_by_one(alone: Repository, tmp_path: Path):
    repository, other = (like(alone, tmp_path / name) for name in ("ray", "one"))
    for made in (repository, other):
        runtime = made.params["runtime"] | {"training": "together"}
        grid = made.params["grid"] | {"models": [MODELS[1]], "students": ["plain"], "rounds": []}
        models = {MODELS[1]: made.params["models"][MODELS[1]]}
        recipes = {"plain": {}}
        made.write_params(
            made.params | {"runtime": runtime, "grid": grid, "models": models, "recipes": recipes}
        )
    one = ("run-cells", "--model", MODELS[1], "--no-commit")
    repository.cli(*one, "--ray", "local", "--actors", "1")
    other.cli(*one)
    assert produced(repository.root) == produced(other.root)
