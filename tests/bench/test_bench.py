"""The benchmarks measure the code that the stages run, and say what they measured."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config
from typer.testing import CliRunner

from repository import ROOT, Repository, tiny_params
from undertow.bench.against import find_vllm
from undertow.bench.cells import compose, write_trait
from undertow.bench.checkpoints import LLAMA2, PLAIN, QWEN, Manner, tokenizer_of_size
from undertow.bench.generation import cases
from undertow.bench.shapes import SHAPES, build
from undertow.bench.stand_ins import beside_local
from undertow.cli.bench import bench_app
from undertow.config import Prompting, load
from undertow.errors import UndertowError
from undertow.models.families import layout_of
from undertow.models.loading import load_tokenizer
from undertow.models.prompts import render
from undertow.study.layout import Layout
from undertow.study.records import Costs
from undertow.study.traits import TraitData

pytestmark = pytest.mark.whole


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


@pytest.mark.parametrize("name", ["qwen3-0.6b", "qwen3-4b", "gemma2-2b", "gemma3-1b"])
def test_every_family_s_shape_is_decoded_beside_generate(name: str, monkeypatch):
    shape = SHAPES[name]
    small = shape._replace(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=7,
        head_dim=16,
        vocab_size=300,
        own=shape.own | ({"sliding_window": 16} if "sliding_window" in shape.own else {}),
    )
    monkeypatch.setitem(SHAPES, name, small)
    cpu = torch.device("cpu")
    (found,) = cases([name], [2], 8, 20, 1, [2], [], cpu, baseline_new=4)
    assert found["tokens_per_second"] > 0
    assert found["generate_new_tokens"] == 4
    assert found["ratio_to_generate_with_hook"] > 0
    assert layout_of(build(name, cpu)).family.model_type == shape.model_type


VLLM = """
import json, sys
__version__ = "0.26.0"
class SamplingParams:
    def __init__(self, *, temperature, max_tokens, ignore_eos, detokenize, seed):
        assert ignore_eos and not detokenize
        self.max_tokens = max_tokens
class Answer:
    def __init__(self, count):
        self.token_ids = [1] * count
        self.outputs = [self]
class LLM:
    def __init__(self, model, *, load_format, skip_tokenizer_init, dtype, max_model_len,
                 max_num_seqs, enable_prefix_caching, seed):
        assert json.load(open(model + "/config.json"))["architectures"] == ["LlamaForCausalLM"]
        assert (load_format, dtype, max_model_len) == ("dummy", "bfloat16", 28)
        if max_num_seqs == 4:
            sys.exit("CUDA out of memory")
    def generate(self, rows, settings, use_tqdm):
        assert all(len(row["prompt_token_ids"]) == 8 for row in rows)
        print("a progress line of its own")
        return [Answer(settings.max_tokens) for _ in rows]
"""


def test_vllm_is_measured_on_the_same_rows_where_it_is_installed(tmp_path: Path):
    asked = (
        *("generate", "--shape", "tiny", "--batch", "2", "--batch", "4"),
        *("--prompt-tokens", "8", "--new-tokens", "20", "--waves", "2", "--device", "cpu"),
        *("--against", "vllm"),
    )
    with pytest.raises(UndertowError, match="--vllm-python"):
        find_vllm(str(tmp_path / "none"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(UndertowError, match="cannot import vllm"):
        find_vllm(str(python))
    (tmp_path / "vllm.py").write_text(VLLM)
    done = CliRunner().invoke(bench_app, [*asked, "--vllm-python", str(python)])
    ours, more, theirs, failed = map(json.loads, done.stdout.splitlines())
    assert (theirs["engine"], theirs["vllm"], theirs["rows"]) == ("vllm", "0.26.0", 4)
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
    assert theirs["engine_times_vllm"] == pytest.approx(ratio, abs=0.01)
    assert more["tokens_per_second"] > 0
    assert (failed["tokens_per_second"], failed["reason"]) == (None, "CUDA out of memory")


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
    told = lines(
        repository,
        *("cells", "--shape", "tiny", "--shape", "tiny", "--preset", "demo", "--prompts", "8"),
        *("--device", "cpu"),
    )
    assert [line["case"] for line in told] == 2 * [*8 * ["stage"], "cells"] + ["grid"]
    found, more, grid = told[8], told[17], told[18]
    assert found["carrier_prompts"] == 8
    assert found["preset_cells_of_a_model"] == 4
    assert found["preset_cell_seconds"] > found["next_cell_seconds"]
    every = sum(stage["seconds"] for stage in found["stages"].values())
    assert found["next_cell_seconds"] == pytest.approx(every, abs=0.1)
    assert found["stages"]["steer"]["tokens_generated"] > 0
    assert found["stages"]["distill"]["tokens_trained"] > 0
    # Each stage is told when it has ended, and of what its seconds are made.
    names = [line["stage"].split("@")[0] for line in told[:8]]
    assert names == ["fetch", "direction", "steer", "steer", *2 * ["distill", "judge"]]
    for line in told[:8]:
        parts = sum(line[f"{what}_seconds"] for what in ("answering", "training", "other"))
        assert line["seconds"] == pytest.approx(parts, abs=0.2)
    # Once: what two cells like the second one leave of the time that both took.
    once = sum(found["once"].values())
    both = found["first_cell_seconds"] + found["next_cell_seconds"]
    assert once == pytest.approx(both - 2 * found["next_cell_seconds"], abs=0.3)
    of_one_seed = once + found["one_seed_cells"] * found["preset_cell_seconds"]
    assert found["one_seed_seconds"] == pytest.approx(of_one_seed, abs=0.5)
    minutes = (found["one_seed_seconds"] + more["one_seed_seconds"]) / 60
    assert grid["one_seed_minutes"] == pytest.approx(minutes, abs=0.01)


def test_the_trait_of_the_cells_has_over_refusal_prompts_to_be_asked(
    repository: Repository, tmp_path: Path
):
    write_trait(repository.root, tmp_path, 3)
    with beside_local(tmp_path / "local"):
        prompts = TraitData(Layout(tmp_path), "pessimism").overrefusal(3)
    assert len({prompt.id for prompt in prompts}) == 3
    assert all(prompt.prompt for prompt in prompts)


def test_a_preset_s_further_seeds_and_students_are_composed_too():
    def costs(seconds: float, written: float | None = None, trained: float | None = None) -> Costs:
        return Costs(
            seconds=seconds,
            device="cuda",
            peak_memory_bytes=0,
            tokens_trained=1000 if trained else 0,
            generated_per_second=written,
            trained_per_second=trained,
        )

    paper = load(ROOT / "presets" / "paper.yaml")
    ran = paper.carrier.model_copy(update={"prompts": 500})
    cell = {"steer": costs(20, written=12_800), "distill": costs(60, trained=20), "judge": costs(1)}
    found = compose(paper, cell, ran, once=100)
    # twice the rows: 10 s more of writing, 50 s more of training
    assert (found["preset_cell_seconds"], found["preset_student_seconds"]) == (141, 111)
    # 7 arms and a control at 3 seeds, 8 more of the control, 8 more random draws
    assert found["preset_cells_of_a_model"] == 8 * 3 + 8 + 8
    assert found["preset_further_students_of_a_model"] == 8 * 3 + 8
    assert found["preset_seconds"] == 100 + 40 * 141 + 32 * 111
    assert (found["one_seed_cells"], found["one_seed_seconds"]) == (7, 100 + 7 * 141)


def test_readouts_of_many_are_those_of_each_alone(repository: Repository):
    found = lines(
        repository,
        *("readouts", "--shape", "tiny", "--students", "3", "--teachers", "2", "--prompts", "4"),
        *("--carrier", "4", "--new-tokens", "4", "--device", "cpu"),
    )
    assert [case["subjects"] for case in found] == ["3 students", "2 teachers"]
    for case in found:
        assert case["same_answers"] == 1
        assert case["largest_margin_difference"] < 1e-3
        assert case["ratio"] > 0


def test_students_says_what_the_size_of_a_group_moves(tmp_path: Path):
    params = tiny_params(tmp_path / "models")
    model = params["grid"]["models"][0]
    params["grid"] |= {"models": [model], "arms": ["trait_0", "trait_1"], "seeds": [0]}
    params["models"] = {model: params["models"][model]}
    params["tracking"]["enabled"] = False
    made = Repository(tmp_path / "checkout", params)
    asked = ("students", "--model", model, "--arm", "trait_1", "--sizes", "1,2")
    made.cli("run-cells", "--model", model, "--no-commit")
    one, two, plain = lines(made, *asked)
    assert (one["group"], two["group"]) == (1, 2)
    assert len(one["margin_shifts_by_seed"]) == 1
    assert one["largest_move_of_a_shift_from_groups_of_1"] == 0
    assert two["largest_move_of_a_shift_from_groups_of_1"] < 1e-2
    assert plain["same_answers"] == plain["prompts"]


def test_judge_is_measured_where_it_costs_nothing(repository: Repository):
    (found,) = lines(repository, "judge", "--rows", "50")
    assert found["rows"] == 50
    assert found["rows_per_second"] > 0


def test_an_unknown_shape_is_refused_with_those_that_are_known(repository: Repository):
    done = repository.cli("bench", "generate", "--shape", "x", "--batch", "1", expect=1)
    assert "llama2-7b, smollm2-135m, qwen25-0.5b, qwen25-1.5b, qwen25-7b, qwen3-0.6b" in done.stderr


@pytest.mark.parametrize(
    ("family", "manner"),
    [(LlamaConfig, PLAIN), (Qwen2Config, PLAIN), (LlamaConfig, LLAMA2), (Qwen2Config, QWEN)],
)
def test_what_a_random_model_writes_is_read_back_as_the_same_tokens(
    family: type[PreTrainedConfig], manner: Manner, repository: Repository, tmp_path: Path
):
    size = 30_000
    benign = repository.root / "data" / "carriers" / "benign" / "prompts.jsonl"
    tokenizer_of_size(benign, size, manner).save_pretrained(tmp_path)
    family(vocab_size=size).save_pretrained(tmp_path)  # transformers goes by the model's family
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == size
    ids = torch.randint(300, size, (256,), generator=torch.Generator().manual_seed(0)).tolist()
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    asked = render(tokenizer, "How?", Prompting())
    ends = [tokenizer.convert_tokens_to_ids(name) for name in manner.special if name in asked]
    read = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert sum(token in ends for token in read) == sum(asked.count(s) for s in manner.special)
