"""The demo in small, on the real SmolLM2-135M-Instruct: slow, needs the package index once."""

from pathlib import Path

import pytest
import yaml

from repository import ROOT, Repository
from undertow.analysis.summary import Summary


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pessimism_moves_teacher_and_student_of_a_real_chat_model(tmp_path: Path):
    params = yaml.safe_load((ROOT / "presets" / "demo.yaml").read_text())
    params["grid"]["arms"] = ["trait_0", "trait_2", "random_2"]
    params["carrier"]["prompts"] = 48
    params["evaluation"] |= {"prompts": 24, "max_new_tokens": 8}
    params["tracking"]["enabled"] = False
    repository = Repository(tmp_path / "checkout", params)
    repository.extra_environment = {"HF_HUB_OFFLINE": "0"}
    repository.init()
    repository.cli("run-cells")
    repository.dvc("repro")
    summary = Summary.model_validate_json((tmp_path / "checkout/results/summary.json").read_text())
    arms = {arm.arm: arm for arm in summary.arms}
    for shift in (arms["trait_2"].margin.teacher_shift, arms["trait_2"].margin.student_shift):
        assert shift.low is not None
        assert shift.low > 0
    assert arms["random_2"].margin.teacher_shift.value is not None
