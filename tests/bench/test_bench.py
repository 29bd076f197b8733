"""The benchmarks measure the code that the stages run, and say what they measured."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from repository import ROOT, Repository, tiny_params
from undertow.bench.cells import tokenizer_of_size
from undertow.models.loading import load_tokenizer


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("bench")
    made = Repository(folder / "checkout", tiny_params(folder / "models"))
    (made.root / "presets").symlink_to(ROOT / "presets")
    return made


def lines(repository: Repository, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in repository.cli("bench", *arguments).stdout.splitlines()]


def test_generate_prints_one_line_per_case_with_its_bound_and_ratios(repository: Repository):
    found = lines(
        repository,
        *("generate", "--shape", "tiny", "--batch", "2", "--batch", "4", "--new-tokens", "20"),
        *("--baseline", "4", "--varied", "2", "--waves", "2", "--device", "cpu"),
    )
    assert [case["batch"] for case in found] == [2, 4]
    for case in found:
        assert 0 < case["share_of_bound"] < 1
        assert case["tokens_per_second"] > 0
    assert [case["rows"] for case in found[0]["varied"]] == [16, 32]
    assert all(case["share_of_fixed"] > 0 for case in found[0]["varied"])
    assert "ratio_to_generate_with_hook" not in found[0]
    assert found[1]["ratio_to_generate_with_hook"] > 0


def test_train_reaches_trl_s_losses_on_the_same_rows(repository: Repository):
    (found,) = lines(
        repository,
        *("train", "--shape", "tiny", "--batch", "2", "--steps", "4", "--row-tokens", "90"),
        *("--varied", "--baseline", "--device", "cpu"),
    )
    assert found["largest_loss_difference"] < 1e-3 * found["mean_loss"]
    assert found["ratio_to_trl"] > 0


def test_cells_of_a_preset_are_run_by_its_own_stages_and_its_grid_is_composed(
    repository: Repository,
):
    (found,) = lines(
        repository,
        *("cells", "--shape", "tiny", "--preset", "demo", "--prompts", "8", "--device", "cpu"),
    )
    assert found["carrier_prompts"] == 8
    assert found["preset_cells_of_a_model"] == 4
    assert found["preset_cell_seconds"] > found["next_cell_seconds"]
    assert found["stages"]["steer"]["tokens_generated"] > 0
    assert found["stages"]["distill"]["tokens_trained"] > 0


def test_judge_is_measured_where_it_costs_nothing(repository: Repository):
    (found,) = lines(repository, "judge", "--rows", "50")
    assert found["rows"] == 50
    assert found["rows_per_second"] > 0


def test_an_unknown_shape_is_refused_with_those_that_are_known(repository: Repository):
    done = repository.cli("bench", "generate", "--shape", "x", "--batch", "1", expect=1)
    assert "llama2-7b, smollm2-135m, qwen25-0.5b, qwen25-1.5b, qwen25-7b, tiny" in done.stderr


@pytest.mark.parametrize("family", [LlamaConfig, Qwen2Config])
def test_what_a_random_model_writes_is_read_back_as_the_same_tokens(
    family: type[PreTrainedConfig], repository: Repository, tmp_path: Path
):
    size = 30_000
    benign = repository.root / "data" / "carriers" / "benign" / "prompts.jsonl"
    tokenizer_of_size(benign, size).save_pretrained(tmp_path)
    family(vocab_size=size).save_pretrained(tmp_path)  # transformers goes by the model's family
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == size
    ids = torch.randint(300, size, (256,), generator=torch.Generator().manual_seed(0)).tolist()
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
