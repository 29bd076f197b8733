"""How fast a model shape runs where it was measured: one small table, dated, for planning.

A speed that nobody measured is None, and a plan that needs it says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from undertow.config import HubWeights, ModelSpec


@dataclass(frozen=True)
class ShapeSpeed:
    """Measured speed of one model shape on one device; None is not measured.

    generated_per_second is the teacher's; trained_per_second goes by distillation.quantization
    (none, nf4), and so does together_per_second, of all students of a group (`bench train
    --students`). start_seconds is what a process takes once, with its model's direction: the first
    cell less a later one. other_seconds is what a cell takes besides where cells share one load,
    with what its student writes more slowly than its teacher.
    """

    shape: str
    repos: tuple[str, ...]  # hub repositories of this shape
    device: str | None = None
    date: str | None = None
    command: str | None = None  # what measured it
    generated_per_second: float | None = None
    trained_per_second: Mapping[str, float | None] = field(default_factory=dict)
    together_per_second: Mapping[str, float | None] = field(default_factory=dict)
    other_seconds: float | None = None
    start_seconds: float | None = None


TABLE = (
    ShapeSpeed(
        shape="Llama-2-7B",
        repos=("meta-llama/Llama-2-7b-chat-hf",),
        device="one NVIDIA H200",
        date="2026-11-28",
        command="bench cells --shape llama2-7b",
        generated_per_second=19405.3,
        trained_per_second={"none": None, "nf4": 18294.6},
        other_seconds=10.9,
        start_seconds=53.7,
    ),
    ShapeSpeed(
        shape="Qwen2.5-7B",
        repos=("Qwen/Qwen2.5-7B-Instruct",),
        device="one NVIDIA H200",
        date="2026-11-28",
        command="bench cells --shape qwen25-7b",
        generated_per_second=27405.5,
        trained_per_second={"none": None, "nf4": 17240.9},
        other_seconds=10.1,
        start_seconds=42.3,
    ),
)


def shipped_speed(spec: ModelSpec) -> ShapeSpeed | None:
    """The table's entry for a model, by its hub repository."""
    if not isinstance(spec.weights, HubWeights):
        return None
    repo = spec.weights.repo
    return next((speed for speed in TABLE if repo in speed.repos), None)
