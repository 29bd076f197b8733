"""What a stage costs, and what a study adds up to."""

import time
from pathlib import Path

import pytest

from factories import make_params
from tiny import save_tiny
from undertow.analysis.costs import total
from undertow.config import Params
from undertow.pipeline.loading import Shelf
from undertow.pipeline.meter import Meter
from undertow.study.layout import Layout, Study
from undertow.study.records import Costs


def cost(**values: object) -> Costs:
    return Costs.model_validate(
        {"seconds": 10.0, "device": "cuda", "peak_memory_bytes": 5, **values}
    )


def test_a_total_adds_hours_tokens_and_money_and_takes_the_highest_peak():
    found = total(
        "m",
        "steer",
        [
            cost(gpu_seconds=1800, tokens_generated=100, generated_per_second=10.0, usd=0.5),
            cost(gpu_seconds=1800, tokens_generated=300, generated_per_second=30.0, usd=0.25),
            cost(peak_memory_bytes=9),
        ],
        3,
    )
    assert found.gpu_hours == 1.0
    assert found.seconds == 30.0
    assert found.tokens_generated == 400
    assert found.generated_per_second == pytest.approx(20.0)  # 400 tokens in 10 s and 10 s
    assert found.trained_per_second is None
    assert found.peak_memory_bytes == 9
    assert found.usd == 0.75


def test_on_a_cpu_gpu_hours_are_unknown_not_zero():
    assert total("m", "steer", [cost(device="cpu")], 1).gpu_hours is None


def test_loading_is_no_part_of_seconds():
    meter = Meter("cpu")
    with meter.loading():
        time.sleep(0.05)
    costs = meter.costs()
    assert costs.load_seconds >= 0.05
    assert costs.seconds < 0.05
    assert costs.gpu_seconds is None


def test_the_first_part_of_a_stage_counts_with_the_second():
    meter = Meter("cpu")
    meter.add_generation(50, 2.0)
    meter.after(
        Costs(
            seconds=100,
            load_seconds=7,
            device="cpu",
            tokens_trained=30,
            trained_per_second=3.0,
            peak_memory_bytes=2**60,
        )
    )
    costs = meter.costs()
    assert costs.seconds >= 100
    assert costs.load_seconds == 7
    assert (costs.tokens_generated, costs.generated_per_second) == (50, 25.0)
    assert (costs.tokens_trained, costs.trained_per_second) == (30, 3.0)
    assert costs.peak_memory_bytes == 2**60


def test_a_bench_loads_a_model_once_and_starts_a_meter_for_each_stage(tmp_path: Path):
    params = make_params(("m",), ("trait_0",), (0,)).model_dump(mode="json")
    folder = save_tiny(tmp_path / "m", "qwen2")
    params["models"]["m"] |= {
        "weights": {"kind": "folder", "path": str(folder)},
        "dtype": "float32",
    }
    study = Study(Params.model_validate(params), Layout(tmp_path))
    shelf = Shelf()
    first, second = shelf.load(study, "m"), shelf.load(study, "m")
    assert first.model is second.model
    assert first.meter is not second.meter
    assert first.meter.costs().load_seconds > 0
    assert second.meter.costs().load_seconds == 0
    shelf.clear()
    assert shelf.load(study, "m").model is not first.model
