"""How fast a model shape runs where it was measured: one small table, dated, for planning.

A rate that nobody measured is None, and a plan that needs it says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from undertow.config import HubWeights, ModelSpec


@dataclass(frozen=True)
class ShapeRate:
    """Measured speed of one model shape on one device; None is not measured.

    trained_per_second goes by distillation.quantization (none, nf4). other_seconds is what a
    cell takes beside generation and training, where cells share one load.
    """

    shape: str
    repos: tuple[str, ...]  # hub repositories of this shape
    device: str | None = None
    date: str | None = None
    command: str | None = None  # what measured it
    generated_per_second: float | None = None
    trained_per_second: Mapping[str, float | None] = field(default_factory=dict)
    other_seconds: float | None = None


H100 = "one NVIDIA H100 80GB"

TABLE = (
    ShapeRate(
        shape="Llama-2-7B",
        repos=("meta-llama/Llama-2-7b-chat-hf",),
        device=H100,
        date="2026-11-25",
        command="bench cells --shape llama2-7b --prompts 480",
        generated_per_second=10801.3,
        trained_per_second={"none": None, "nf4": 12639.3},
        other_seconds=15.8,
    ),
    ShapeRate(
        shape="Qwen2.5-7B",
        repos=("Qwen/Qwen2.5-7B-Instruct",),
        device=H100,
        date="2026-11-25",
        command="bench generate --batch 128; bench train --nf4 --memory-gb 24; bench train",
        generated_per_second=15908.3,
        trained_per_second={"none": 15471.1, "nf4": 11631.6},
    ),
)


def shipped_rate(spec: ModelSpec) -> ShapeRate | None:
    """The table's entry for a model, by its hub repository."""
    if not isinstance(spec.weights, HubWeights):
        return None
    repo = spec.weights.repo
    return next((rate for rate in TABLE if repo in rate.repos), None)
