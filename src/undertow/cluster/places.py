"""The places of a Ray cluster: what fits on its nodes, and an actor on each place.

The one module that imports Ray, when it is first used.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import undertow
from undertow.cluster.actor import Actor
from undertow.errors import ConfigError, UndertowError

LOCAL = "local"
PACKAGE = Path(undertow.__file__).parent


class Need(NamedTuple):
    """What one actor takes of its node; actors: how many there may be, None for all that fit."""

    gpus: int
    threads: int
    actors: int | None = None

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many actors a node with these resources holds."""
        by_cpu = int(resources.get("CPU", 0) // self.threads)
        return min(by_cpu, int(resources.get("GPU", 0))) if self.gpus else by_cpu


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to the cluster at this address, or to one of this machine that ends with it.

    Raises UndertowError where there is no Ray or no cluster.
    """
    if address == LOCAL:
        # Ray would write a token into the home folder, and report its use.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        above = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, above))
    elif address.startswith("ray://"):
        raise ConfigError(
            f"--ray {address}: results would have to pass through Ray's client, which loses them "
            "with its connection",
            "run this command on a node of the cluster: --ray auto; ray job submit brings it there",
        )
    try:
        import ray
    except ImportError:
        raise UndertowError("Ray is not installed", "pip install 'undertow[ray]'") from None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options["include_dashboard"] = False
    else:
        options["runtime_env"] = {"py_modules": [str(PACKAGE)]}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UndertowError(
            f"no Ray cluster answers at {address}: {first}",
            "start one with: ray start --head; or give --ray local",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def need_of(ray: ModuleType, device: str, threads: int | None, actors: int | None) -> Need:
    """What an actor takes here; ConfigError where the cluster cannot give it.

    device: runtime.device. Ray itself would wait forever for what is not there.
    """
    nodes = _nodes(ray)
    gpus = sum(int(node.get("GPU", 0)) for node in nodes.values())
    wants_gpu = device.startswith("cuda") or (device == "auto" and gpus > 0)
    if wants_gpu and not gpus:
        raise ConfigError(
            f"runtime.device is {device}, and the cluster has no GPU: {_told(nodes)}",
            "add nodes with GPUs (ray start --num-gpus N), or set runtime.device to cpu",
        )
    if threads is None and wants_gpu:
        each = [node["CPU"] // node["GPU"] for node in nodes.values() if node.get("GPU")]
        threads = max(1, int(min(each)))
    elif threads is None:
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    need = Need(int(wants_gpu), threads, actors)
    places = sum(need.fits(node) for node in nodes.values())
    if places < (actors or 1):
        each_one = f"{threads} CPUs" + (" and a GPU" if wants_gpu else "")
        raise ConfigError(
            f"the cluster holds {places} actors of {each_one} each, and {actors or 1} are asked "
            f"for: {_told(nodes)}",
            "give a smaller --actors or --threads, or add nodes",
        )
    return need


def places(ray: ModuleType, need: Need) -> int:
    """How many actors the nodes that live now hold."""
    held = sum(need.fits(node) for node in _nodes(ray).values())
    return held if need.actors is None else min(held, need.actors)


def living(ray: ModuleType) -> dict[str, str]:
    """The nodes that live now: Ray's identity of each, and a name for people."""
    return {
        node["NodeID"]: f"{node['NodeManagerAddress']}-{node['NodeID'][:4]}"
        for node in ray.nodes()
        if node["Alive"]
    }


def actor(ray: ModuleType, need: Need) -> Any:
    """An `Actor` on a place of its own; it ends with this process."""
    made = ray.remote(Actor).options(
        num_cpus=need.threads, num_gpus=need.gpus, max_restarts=0, max_task_retries=0
    )
    return made.remote(need.threads, need.gpus)


def end(ray: ModuleType, actors: list[Any]) -> None:
    """Let those that wait clean up, and end all of them."""
    with suppress(Exception):
        ray.wait([one.close.remote() for one in actors], num_returns=len(actors), timeout=2)
    for one in actors:
        with suppress(Exception):
            ray.kill(one)


def _nodes(ray: ModuleType) -> dict[str, dict[str, float]]:
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _told(nodes: Mapping[str, Mapping[str, float]]) -> str:
    each = (
        f"{name[:4]}: {node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs"
        for name, node in nodes.items()
    )
    return "; ".join(each) or "no node lives"
