"""What every stage starts from: the parameters, the layout and the tools that they choose."""

import platform
import resource
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from undertow.config import Cell, Params, load
from undertow.results import Costs, Layout, Manifest

PACKAGES = ("torch", "transformers", "peft", "trl", "numpy")


class Study(NamedTuple):
    """Parameters plus layout."""

    params: Params
    layout: Layout

    @classmethod
    def open(cls, root: Path | None = None) -> "Study":
        layout = Layout(find_root() if root is None else root)
        return cls(load(layout.params), layout)


def find_root() -> Path:
    """The nearest folder upwards that holds params.yaml, else the current one."""
    here = Path.cwd().resolve()
    return next((path for path in (here, *here.parents) if (path / "params.yaml").exists()), here)


class Meter:
    """Counts what a stage costs, from its creation on."""

    def __init__(self, device: str) -> None:
        self._started = time.perf_counter()
        self.device = device
        self._generated = self._trained = 0
        self._generating = self._training = 0.0
        self._earlier = 0.0

    def add_generation(self, tokens: int, seconds: float) -> None:
        self._generated += tokens
        self._generating += seconds

    def add_training(self, tokens: int, seconds: float) -> None:
        """Training that ended before this meter was started, perhaps in a run that was killed."""
        self._trained += tokens
        self._training += seconds
        self._earlier += seconds

    def costs(self) -> Costs:
        """Rates leave out loading; a stage that trains reports its training rate."""
        tokens, seconds = (
            (self._trained, self._training)
            if self._trained
            else (self._generated, self._generating)
        )
        return Costs(
            seconds=round(self._earlier + time.perf_counter() - self._started, 3),
            device=self.device,
            tokens_generated=self._generated,
            tokens_trained=self._trained,
            tokens_per_second=round(tokens / seconds, 1) if seconds else None,
            peak_memory_bytes=_peak_memory(self.device),
        )


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cell_command(stage: str, cell: Cell) -> str:
    """The command that runs one stage of one cell by hand."""
    return f"python cli.py {stage} --model {cell.model} --arm {cell.arm.name} --seed {cell.seed}"


def manifest(stage: str, subject: str, command: str, meter: Meter) -> Manifest:
    return Manifest(
        stage=stage,
        subject=subject,
        command=command,
        costs=meter.costs(),
        versions={name: version for name in PACKAGES if (version := _version(name))},
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
