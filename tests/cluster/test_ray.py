"""run-cells --ray: two nodes of one machine give what `dvc repro` gives, and lose nothing."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import psutil
import pytest

from repository import ROOT, Repository, tiny_params
from undertow.cluster.parcels import pack
from undertow.cluster.places import Need, actor, connected, end, need_of, places

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
MODELS = ("tiny-llama2", "tiny-qwen2")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
KILLS = 10
VARIES = ("costs",)  # of manifest.json and cell.json: the seconds and memory that a run took,
HOLDS_IT = re.compile(r"results/cells/.*/(cell\.json|[^/.]+)")  # and so hashes of what holds them


def make(folder: Path, models: Path) -> Repository:
    """Two models, two arms; a plain student, one of the other model, and one more round.

    24 of the stages are a worker's: enough for two to be finished for each of ten kills.
    """
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
    """Every file that a stage of a model or cell has written, but for what VARIES."""
    found: dict[str, Any] = {}
    for folder in ("models", "bases", "directions", "cells"):
        for path in sorted((root / "results" / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file():
                found[name] = path.read_bytes()
            if path.name.endswith(("manifest.json", "cell.json")):
                record = json.loads(found[name])
                for hashes in (record.get("inputs", {}), record.get("outputs", {})):
                    for path_of in filter(HOLDS_IT.fullmatch, list(hashes)):
                        del hashes[path_of]
                found[name] = {k: v for k, v in record.items() if k not in VARIES}
    return found


def events(text: str, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    return [event for event in found if event["event"] == kind]


def stages(text: str, kind: str) -> Counter[str]:
    return Counter(event["stage"] for event in events(text, kind))


def until(happened: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for it at most so long."""
    end_of_patience = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end_of_patience:
            return False
        time.sleep(0.2)
    return True


def workers_of(nodes: list[Any]) -> list[psutil.Process]:
    """The processes of our actors on these nodes."""
    found = []
    for node in nodes:
        for info in node.all_processes.get("raylet", []):
            for process in psutil.Process(info.process.pid).children(recursive=True):
                try:
                    if any("ray::Actor" in word for word in process.cmdline()):
                        found.append(process)
                except psutil.NoSuchProcess:
                    continue
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without places, and two nodes with one each."""
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args=NODE | {"num_cpus": 0}, shutdown_at_exit=True
    )
    try:
        made.nodes = [made.add_node(**NODE) for _ in range(2)]
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def alone(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The grid by `dvc repro`, every stage a process."""
    repository = make(tmp_path_factory.mktemp("alone") / "checkout", models)
    repository.init()
    repository.dvc("repro", "judge", "judge-round")
    return repository


def lines_of(process: Any) -> Queue[str | None]:
    """What it says from now on, line by line, and None when it has ended."""
    said: Queue[str | None] = Queue()

    def read() -> None:
        for line in process.stdout:
            said.put(line)
        said.put(None)

    Thread(target=read, daemon=True).start()
    Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
    return said


@contextmanager
def standing_still(process: Any) -> Iterator[None]:
    """It hands out nothing meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def replace(node: Any, cluster: Any) -> None:
    """Kill a node and start another one."""
    cluster.nodes.remove(node)
    cluster.remove_node(node, allow_graceful=False)
    cluster.nodes.append(cluster.add_node(wait=False, **NODE))


def killed(process: Any, cluster: Any, draws: random.Random) -> list[str]:
    """Kill nodes while it runs, then the driver itself; what it had said until then.

    A node is killed after a worker has finished something since the last kill: after a part of the
    time that this took, drawn at random, or when the next thing is finished. So on slow and on
    fast machines two stages are finished for a kill, or fewer. What has been lost twice is spared:
    a third time would be the end of it, which another test looks at.
    """
    said: list[str] = []
    lines, kills = lines_of(process), 0
    killed_at, due = 0.0, None
    lost: Counter[str] = Counter()
    works: dict[str, str] = {}

    def heard(line: str) -> dict[str, Any]:
        said.append(line)
        event: dict[str, Any] = json.loads(line)
        lost[event.get("stage", "")] += event["event"] == "lost"
        if event["event"] == "started":
            works[event["node"][-4:]] = event["stage"]
        return event

    while True:
        try:
            line = lines.get(timeout=None if due is None else max(0, due - time.monotonic()))
        except Empty:
            line = ""
        if line is None:
            break
        if line:
            event = heard(line)
            if event["event"] != "finished" or event["time"] < killed_at:
                continue
            if kills == KILLS:
                process.send_signal(signal.SIGKILL)
                break
            wait = draws.uniform(0, event["seconds"]) if due is None else 0
            due = time.monotonic() + wait
        elif due is not None:
            with standing_still(process):
                # What it had said before is heard first: it tells who works on what.
                with suppress(Empty):
                    while (line := lines.get(timeout=0.5)) is not None:
                        heard(line)
                    lines.put(None)  # it had ended
                due, killed_at = None, time.time()
                may_go = [one for one in cluster.nodes if lost[works.get(one.node_id[:4], "")] < 2]
                if may_go:
                    replace(draws.choice(may_go), cluster)
                    kills += 1
    process.wait()
    assert kills == KILLS, "".join(said)
    return said


def test_ten_killed_nodes_and_a_killed_driver_lose_nothing_and_change_nothing(
    models: Path, alone: Repository, cluster: Any, tmp_path: Path
):
    repository = make(tmp_path / "checkout", models)
    repository.init()
    command = ("run-cells", "--ray", cluster.address, "--json")
    said = "".join(killed(repository.start(*command), cluster, random.Random(3)))
    first = stages(said, "finished")
    # What was in flight when its node was killed was begun again, and nothing else.
    begun, lost = stages(said, "started"), stages(said, "lost")
    assert 0 < lost.total() <= KILLS and max(first.values()) == 1
    assert all(begun[stage] <= 1 + lost[stage] for stage in begun)
    assert events(said, "failed") == []
    assert until(lambda: not workers_of(cluster.nodes))

    done = repository.cli(*command)
    second = stages(done.stdout, "finished")
    # What the first driver had said to be finished is not run again.
    assert first.keys().isdisjoint(second) and max(second.values()) == 1
    assert produced(repository.root) == produced(alone.root)
    found = json.loads(repository.dvc("status", "--json"))
    assert [name for name in found if not name.startswith(("report", "audit@"))] == []

    workers = events(done.stdout, "worker")
    assert sum(one["jobs"] for one in workers) == second.total()
    at_work = [one for one in workers if one["jobs"]]  # one stage may be all that was left
    assert all(0 < one["busy_seconds"] <= one["span_seconds"] for one in at_work)
    assert all(one["busy_share"] is None for one in workers if not one["jobs"])
    kept = json.loads((repository.root / ".undertow" / "cluster" / "usage.json").read_text())
    assert kept["cells_seconds"] >= max(one["cells_busy_seconds"] for one in workers) > 0


def test_what_fails_for_its_own_reasons_or_for_want_of_memory_is_named_and_the_rest_goes_on(
    models: Path, cluster: Any, tmp_path: Path
):
    repository = make(tmp_path / "checkout", models)
    params = repository.params
    params["grid"] |= {"arms": ["trait_0"], "students": ["plain"], "rounds": []}
    params["recipes"] = {"plain": {}}
    params["distillation"]["lora"]["rank"] = 10**13  # no address space holds it
    empty = tmp_path / "empty"
    empty.mkdir()
    params["models"][MODELS[1]]["weights"] |= {"path": str(empty)}
    repository.write_params(params)
    done = repository.cli("run-cells", "--no-commit", "--ray", cluster.address, "--json", expect=1)

    begun, finished = stages(done.stdout, "started"), stages(done.stdout, "finished")
    assert begun[f"fetch@{MODELS[1]}"] == 1 and begun[f"direction@{MODELS[1]}"] == 0
    assert finished[f"steer@{MODELS[0]}-trait_0-0"] == 1

    student = f"distill@{MODELS[0]}-trait_0-plain-0"
    tries = [event["node"] for event in events(done.stdout, "lost")]
    assert begun[student] == len(tries) == 3 and len(set(tries[:2])) == 2
    assert "was lost 3 times" in done.stderr and "DefaultCPUAllocator" in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [MODELS[1], f"{MODELS[0]}/trait_0/seed0"]


def test_interrupting_a_local_cluster_leaves_no_process_and_no_token(models: Path, tmp_path: Path):
    repository = make(tmp_path / "checkout", models)
    home = tmp_path / "home"
    home.mkdir()
    repository.extra_environment = {"HOME": str(home)}
    # What a shell starts in the background ignores Ctrl-C, and so would what the test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = repository.start("run-cells", "--no-commit", "--ray", "local", "--actors", "1")
    assert process.stderr is not None
    for line in process.stderr:
        if "direction@" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("ray::Actor" in " ".join(child.cmdline()) for child in children)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert list(home.rglob("*token*")) == []


def test_what_the_cluster_has_not_got_is_said_at_once(models: Path, cluster: Any, tmp_path: Path):
    repository = make(tmp_path / "checkout", models)
    started = time.monotonic()
    asked = ("run-cells", "--no-commit", "--ray", cluster.address, "--threads", "999")
    assert "actors of 999 CPUs each" in repository.cli(*asked, expect=1).stderr
    assert time.monotonic() - started < 60
    done = repository.cli("run-cells", "--actors", "2", expect=1)
    assert "need --ray" in done.stderr


def test_ray_is_started_with_every_gpu_in_sight(models: Path, tmp_path: Path):
    repository = make(tmp_path / "one", models)
    fake = tmp_path / "site" / "ray" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text(
        "import os\ndef init(**_):\n"
        "    raise RuntimeError(os.environ.get('CUDA_VISIBLE_DEVICES'))\n"
    )
    path = os.pathsep.join([str(fake.parents[1]), os.environ.get("PYTHONPATH", "")])
    repository.extra_environment = {"PYTHONPATH": path}
    process = repository.start("run-cells", "--no-commit", "--ray", "local")
    assert "no Ray cluster answers at local: None" in process.communicate()[1]


def test_each_worker_sees_a_gpu_of_its_own(cluster: Any):
    node = cluster.add_node(**NODE | {"num_cpus": 2, "num_gpus": 2})
    with connected(cluster.address) as ray:
        need = need_of(ray, "auto", None, None)
        assert need == Need(gpus=1, threads=1) and places(ray, need) == 2
        shared = pack(ROOT, ["params.yaml", "dvc.yaml"])
        workers = [actor(ray, need) for _ in range(2)]
        here = ray.get([worker.hello.remote(shared) for worker in workers])
        assert sorted(one.gpus for one in here) == ["0", "1"]
        end(ray, workers)
    cluster.remove_node(node)


def test_groups_are_dealt_out_and_give_the_bytes_of_one_process(
    models: Path, cluster: Any, tmp_path: Path
):
    repository, other = (make(tmp_path / name, models) for name in ("ray", "one"))
    for made in (repository, other):
        runtime = made.params["runtime"] | {"training": "together"}
        grid = made.params["grid"] | {
            "models": [MODELS[1]],
            "arms": ["trait_0"],
            "seeds": list(range(8)),
            "students": ["plain"],
            "rounds": [],
        }
        one = {MODELS[1]: made.params["models"][MODELS[1]]}
        changed = {"runtime": runtime, "grid": grid, "models": one, "recipes": {"plain": {}}}
        made.write_params(made.params | changed)
    done = repository.cli("run-cells", "--no-commit", "--ray", cluster.address, "--json")
    other.cli("run-cells", "--no-commit")
    assert produced(repository.root) == produced(other.root)
    assert sum(one["cells"] for one in events(done.stdout, "worker")) == 8
