"""What a stage costs, and the manifest that says so."""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from undertow.study.records import Costs, Manifest, ShiftRecord

PACKAGES = ("torch", "transformers", "peft", "trl", "numpy")


class Meter:
    """Counts what a stage costs, from its creation on."""

    def __init__(self, device: str) -> None:
        self._started = time.perf_counter()
        self.device = device
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        self._generated = self._trained = 0
        self._generating = self._training = self._loading = 0.0
        self._earlier = Costs(seconds=0, device=device, peak_memory_bytes=0)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Count the block's time as loading."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._loading += time.perf_counter() - started

    def add_generation(self, tokens: int, seconds: float) -> None:
        self._generated += tokens
        self._generating += seconds

    def add_training(self, tokens: int, seconds: float) -> None:
        self._trained += tokens
        self._training += seconds

    def after(self, earlier: Costs) -> None:
        """Add an earlier part of the same stage, perhaps of a run that was killed after it."""
        self._earlier = added(self._earlier, earlier)

    def costs(self) -> Costs:
        """What the stage has cost up to now."""
        earlier, held = self._earlier, time.perf_counter() - self._started
        on_gpu = self.device.startswith("cuda")
        return Costs(
            seconds=round(earlier.seconds + held - self._loading, 3),
            load_seconds=round(earlier.load_seconds + self._loading, 3),
            gpu_seconds=round((earlier.gpu_seconds or 0) + held, 3) if on_gpu else None,
            device=self.device,
            tokens_generated=earlier.tokens_generated + self._generated,
            tokens_trained=earlier.tokens_trained + self._trained,
            generated_per_second=_rate(self._generated, self._generating)
            or earlier.generated_per_second,
            trained_per_second=_rate(self._trained, self._training) or earlier.trained_per_second,
            peak_memory_bytes=max(earlier.peak_memory_bytes, peak_memory(self.device)),
        )


def added(first: Costs, then: Costs) -> Costs:
    """What two parts of a stage took; rates are the second one's where it has any."""
    held = [costs.gpu_seconds for costs in (first, then) if costs.gpu_seconds is not None]
    return then.model_copy(
        update={
            "seconds": round(first.seconds + then.seconds, 3),
            "load_seconds": round(first.load_seconds + then.load_seconds, 3),
            "gpu_seconds": round(sum(held), 3) if held else None,
            "tokens_generated": first.tokens_generated + then.tokens_generated,
            "tokens_trained": first.tokens_trained + then.tokens_trained,
            "generated_per_second": then.generated_per_second or first.generated_per_second,
            "trained_per_second": then.trained_per_second or first.trained_per_second,
            "peak_memory_bytes": max(first.peak_memory_bytes, then.peak_memory_bytes),
        }
    )


def _rate(tokens: int, seconds: float) -> float | None:
    return round(tokens / seconds, 1) if seconds else None


def peak_memory(device: str) -> int:
    """Bytes: of a GPU since the last meter began, else of this process from its start on."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def manifest(
    stage: str, subject: str, command: str, meter: Meter, shift: ShiftRecord | None = None
) -> Manifest:
    return Manifest(
        stage=stage,
        subject=subject,
        command=command,
        costs=meter.costs(),
        versions={name: version for name in PACKAGES if (version := _version(name))},
        shift=shift,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
