"""Work captured as a CUDA graph, and tensors that reach a device without waiting for it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The work as a CUDA graph, run twice before it is captured; on a CPU the work itself."""
    if device.type != "cuda":
        return work
    stream = _side_stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@cache
def _side_stream(device: torch.device) -> Any:
    """One for all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    stream: Any = torch.cuda.Stream
    return stream(device)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it is doing."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
