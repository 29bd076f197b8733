"""What this device does at best: a large copy and a large product."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Ceilings(NamedTuple):
    bytes_per_second: float  # read plus written
    flops_per_second: float  # of a product in the model's type


def measure_ceilings(device: torch.device) -> Ceilings:
    """Median of several large copies and products of random numbers."""
    on_gpu = device.type == "cuda"
    size = 2**31 if on_gpu else 2**26
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device)
    side = 8192 if on_gpu else 512
    kind = torch.bfloat16 if on_gpu else torch.float32
    left, right = torch.randn(2, side, side, device=device).to(kind)
    product = seconds(lambda: left @ right, device)
    return Ceilings(2 * size / copy, 2 * side**3 / product)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    """Median time of one call."""
    times = []
    for number in range(repeats + 2):
        started = _now(device)
        work()
        if number >= 2:
            times.append(_now(device) - started)
    return sorted(times)[len(times) // 2]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
