"""Students trained together are those that TRL trains one by one, whoever stands beside them."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import TrainerCallback

import families
from packed import pack, unpacks
from tiny import tiny_model, tiny_tokenizer
from undertow.config import DistillationSettings, Lora
from undertow.models.families import layout_of
from undertow.student.batch import Share, filled
from undertow.student.block import kinds_of
from undertow.student.dealing import sizes_of
from undertow.student.frozen import FrozenBase
from undertow.student.rows import IGNORED
from undertow.student.stack import adapted_layers
from undertow.student.step import Step, update_rates
from undertow.student.teaching import Teaching
from undertow.student.together import Student, Together, why_alone
from undertow.student.training import train

FAMILIES = pytest.mark.parametrize("family", ["llama2", "qwen2"])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
SETTINGS = DistillationSettings(
    epochs=2,
    learning_rate=1e-2,
    batch_size=4,
    weight_decay=0.1,
    warmup_ratio=0.2,
    schedule="cosine",
    lora=Lora(rank=4, alpha=8),
)


def carrier(count: int, seed: int, vocabulary: int, *, repeat: bool = False) -> list[dict]:
    """Rows of 8 to 60 tokens, learned from the fifth on; repeat: one token over and over, which
    a random model finds so unlikely that the gradient is clipped.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(8, 60, (1,), generator=generator))
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        if repeat:
            ids = ids[:4] + [7] * (length - 4)
        rows.append({"input_ids": ids, "labels": [IGNORED] * 4 + ids[4:]})
    return rows


def model_of(family: str):
    tokenizer = tiny_tokenizer(family)
    return tiny_model(family, len(tokenizer)).requires_grad_(False), tokenizer


def forget(_step, _loss, _rate):
    pass


def three(vocabulary: int, folder: Path, settings=SETTINGS) -> list[Student]:
    """Of different carriers, seeds and numbers of rows."""
    return [
        Student(
            Teaching(carrier(count, seed, vocabulary, repeat=seed == 2), settings),
            seed,
            folder / str(seed),
            forget,
        )
        for count, seed in ((10, 0), (7, 1), (16, 2))
    ]


def together(model, tokenizer, students, size=None, run=None):
    trainer = Together(
        model,
        tokenizer,
        run or [(student.teaching, student.seed) for student in students],
        size=size or len(students),
    )
    return [one for group in trainer.train(students) for one in group]


def reference(model, tokenizer, student: Student, folder: Path):
    """TRL's losses."""
    return train(model, tokenizer, student.teaching, student.seed, folder, forget).losses


def assert_same_losses(found, expected, within=1e-5):
    assert [step for step, _ in found] == [step for step, _ in expected]
    torch.testing.assert_close(
        [loss for _, loss in found], [loss for _, loss in expected], atol=within, rtol=0
    )


class Norms(TrainerCallback):
    """The gradient's norm after TRL has clipped it: 1 wherever it did."""

    def __init__(self):
        self.found = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        self.found.append(torch.stack([part.norm() for part in gradients]).norm().item())


@FAMILIES
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_step_s_loss_is_trl_s_alone_and_in_company(family, accumulation, tmp_path: Path):
    settings = SETTINGS.model_copy(update={"gradient_accumulation": accumulation})
    model, tokenizer = model_of(family)
    students = three(len(tokenizer), tmp_path / "ours", settings)
    in_company = together(model, tokenizer, students)
    clipped = []
    for number, student in enumerate(students):
        norms, folder = Norms(), tmp_path / "trl" / str(number)
        expected = train(
            model, tokenizer, student.teaching, student.seed, folder, forget, watch=[norms]
        ).losses
        clipped.append(any(abs(norm - 1) < 1e-4 for norm in norms.found))
        own = student._replace(adapter=tmp_path / "alone" / str(number))
        (alone,) = together(model, tokenizer, [own])
        assert_same_losses(alone.losses, expected)
        assert_same_losses(in_company[number].losses, expected)
    assert any(clipped)


OTHERS = (
    "qwen3",
    "qwen2-window",
    "mistral-v0.1",
    "gemma",
    "gemma3",
    "phi3",
    "olmo2",
    "granite",
    "smollm3",
)


@pytest.mark.parametrize("name", OTHERS)
def test_every_family_of_the_table_learns_as_with_trl(name: str, tmp_path: Path):
    """Windows, norms behind, joined projections, blocks without positions, multipliers."""
    model, tokenizer = families.model_of(name).requires_grad_(False), families.tokenizer_of(name)
    assert why_alone(model, SETTINGS) is None
    students = three(300, tmp_path / "ours")[:2]
    for number, one in enumerate(together(model, tokenizer, students)):
        expected = reference(model, tokenizer, students[number], tmp_path / "trl" / str(number))
        assert_same_losses(one.losses, expected)


def test_layers_that_have_no_adapter_beside_others_of_their_input_stay_the_base_s(tmp_path: Path):
    lora = Lora(rank=4, alpha=6, target_modules=("k_proj", "v_proj", "up_proj"))
    settings = SETTINGS.model_copy(update={"lora": lora})
    model, tokenizer = model_of("qwen2")
    students = three(len(tokenizer), tmp_path / "ours", settings)[:2]
    for number, one in enumerate(together(model, tokenizer, students)):
        expected = reference(model, tokenizer, students[number], tmp_path / "trl" / str(number))
        assert_same_losses(one.losses, expected)


def test_a_family_whose_attention_is_capped_is_left_to_trl():
    assert "capped" in why_alone(families.model_of("gemma2"), SETTINGS)


def test_the_adapter_is_the_one_that_trl_saves_and_plain_peft_loads_it(tmp_path: Path):
    model, tokenizer = model_of("qwen2")
    student = three(len(tokenizer), tmp_path / "ours")[0]
    together(model, tokenizer, [student])
    train(model, tokenizer, student.teaching, 0, tmp_path / "trl", forget)
    names = {path.name for path in (tmp_path / "trl").iterdir()}
    assert {path.name for path in student.adapter.iterdir()} == names
    ours, trls = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (student.adapter, tmp_path / "trl")
    )
    assert ours.keys() == trls.keys()
    for name, tensor in trls.items():
        assert ours[name].dtype == tensor.dtype
        torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=0)
    config = "adapter_config.json"
    assert (student.adapter / config).read_text() == (tmp_path / "trl" / config).read_text()
    assert json.loads((student.adapter / config).read_text())["base_model_name_or_path"] is None
    fresh, _ = model_of("qwen2")
    loaded = PeftModel.from_pretrained(fresh, student.adapter)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_student_s_bytes_depend_on_no_neighbour_and_no_place(device: str, tmp_path: Path):
    """In groups of three of one run: first, last, alone among blanks, and after another group."""
    model, tokenizer = model_of("llama2")
    if device == "cuda":
        model = model.to(device, torch.bfloat16)
    students = three(len(tokenizer), tmp_path)
    run = [(student.teaching, student.seed) for student in students]
    a, b, c = students
    found = []
    for number, group in enumerate([[a, b, c], [c, b, a], [a], [b, c, b, a]]):
        folder = tmp_path / f"group{number}"
        placed = [
            student._replace(adapter=folder / str(place)) for place, student in enumerate(group)
        ]
        together(model, tokenizer, placed, size=3, run=run)
        own = folder / str(group.index(a)) / "adapter_model.safetensors"
        found.append(own.read_bytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_group_of_one_has_its_own_lengths_and_the_same_bytes_on_a_resumed_run(
    device: str, tmp_path: Path
):
    model, tokenizer = model_of("qwen2")
    if device == "cuda":
        model = model.to(device, torch.bfloat16)
    students = three(len(tokenizer), tmp_path / "whole")
    run = [(student.teaching, student.seed) for student in students]
    together(model, tokenizer, students, size=1, run=run)
    late = students[1]._replace(adapter=tmp_path / "late")
    together(model, tokenizer, [late], size=1, run=run)
    first, second = (
        (folder / "adapter_model.safetensors").read_bytes()
        for folder in (students[1].adapter, late.adapter)
    )
    assert first == second


@pytest.mark.parametrize("device", DEVICES)
def test_losses_that_are_read_late_are_all_heard_and_in_order(
    device: str, monkeypatch, tmp_path: Path
):
    model, tokenizer = model_of("llama2")
    model = model.to(device)
    settings = SETTINGS.model_copy(update={"epochs": 9})
    rows = carrier(10, 0, len(tokenizer))
    found = []
    for every in (10, 1):
        monkeypatch.setattr("undertow.student.together.READ_EVERY", every)
        heard: list[tuple[int, float]] = []
        student = Student(
            Teaching(rows, settings),
            0,
            tmp_path / str(every),
            lambda step, loss, _, heard=heard: heard.append((step, loss)),
        )
        (one,) = together(model, tokenizer, [student])
        assert heard == one.losses
        found.append(heard)
    assert [step for step, _ in found[0]] == list(range(1, 28))
    assert found[0] == found[1]


def test_where_memory_runs_out_groups_then_parts_shrink_and_losses_stay(tmp_path: Path, capsys):
    model, tokenizer = model_of("qwen2")
    students = three(len(tokenizer), tmp_path)
    expected = together(model, tokenizer, students)

    def one_student(_module, inputs):
        if inputs[0].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory (a device of one student)")

    hook = model.model.embed_tokens.register_forward_pre_hook(one_student)
    found = together(model, tokenizer, students)
    hook.remove()
    for one, other in zip(found, expected, strict=True):
        assert_same_losses(one.losses, other.losses)
    assert "starting again with groups of 1, 4 rows of each at a time" in capsys.readouterr().err


def test_parts_of_a_batch_and_recomputed_activations_give_the_same_losses(tmp_path: Path, capsys):
    model, tokenizer = model_of("qwen2")
    (student, *_) = three(len(tokenizer), tmp_path)
    (expected,) = together(model, tokenizer, [student])
    refusals = 4  # whole, two rows, one row; the fourth try recomputes

    def full(_module, _inputs):
        nonlocal refusals
        refusals -= 1
        if refusals > 0:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.model.embed_tokens.register_forward_pre_hook(full)
    (found,) = together(model, tokenizer, [student])
    hook.remove()
    assert_same_losses(found.losses, expected.losses)
    assert "1 rows of each at a time, recomputing activations" in capsys.readouterr().err


def test_memory_that_never_suffices_says_what_to_change(tmp_path: Path):
    model, tokenizer = model_of("qwen2")
    (student, *_) = three(len(tokenizer), tmp_path)

    def full(_module, _inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.embed_tokens.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError, match="nf4"):
        together(model, tokenizer, [student])
    assert not student.adapter.exists()


def test_what_cannot_share_a_step_says_why():
    model, _ = model_of("llama2")
    assert why_alone(model, SETTINGS) is None
    dropping = SETTINGS.model_copy(update={"lora": Lora(rank=4, alpha=8, dropout=0.1)})
    assert "dropout" in why_alone(model, dropping)
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert "rotary" in why_alone(model, SETTINGS)


@needs_cuda
@FAMILIES
def test_captured_float32_losses_on_cuda_are_trl_s(family: str, tmp_path: Path):
    model, tokenizer = model_of(family)
    students = three(len(tokenizer), tmp_path / "ours")
    expected = [
        reference(model, tokenizer, student, tmp_path / "trl" / str(number))
        for number, student in enumerate(students)
    ]
    model = model.to("cuda")
    for one, losses in zip(together(model, tokenizer, students), expected, strict=True):
        assert_same_losses(one.losses, losses, within=1e-4)


@needs_cuda
def test_captured_bfloat16_losses_on_cuda_stay_near_trl_s(tmp_path: Path):
    model, tokenizer = model_of("qwen2")
    model = model.to("cuda", torch.bfloat16)
    students = three(len(tokenizer), tmp_path / "ours")
    for number, one in enumerate(together(model, tokenizer, students)):
        losses = reference(model, tokenizer, students[number], tmp_path / "trl" / str(number))
        # Of a random model with large weights; the trained ones' figures are in docs/gpu.md.
        assert_same_losses(one.losses, losses, within=0.05 * losses[0][1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recompute", [False, True])
@FAMILIES
def test_nf4_unpacked_each_step_is_nf4_unpacked_for_good(
    family: str, recompute: bool, device: str, monkeypatch: pytest.MonkeyPatch
):
    """Which it is depends on free memory. Where a weight was, an activation may be afterwards."""
    model, tokenizer = model_of(family)
    model = model.to(device, torch.bfloat16).requires_grad_(False)
    for block in model.model.layers:
        for name in ("gate_proj", "up_proj"):  # the layer after them is not packed
            pack(block.mlp, name, device)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            pack(block.self_attn, name, device)
    layout = layout_of(model)
    layers = adapted_layers(model, SETTINGS.lora)
    kinds = kinds_of(model, layout, 4, 2.0, layers)
    rows = carrier(4, 0, len(tokenizer))
    sizes = sizes_of([(Teaching(rows, SETTINGS), 0)], 1, 4)
    batch = filled([Share(rows, 100)], sizes.tokens[0][0], sizes)
    start = torch.randn(len(kinds), 1, kinds[0].numbers, device=device) * 0.05
    found = []
    unpacks(monkeypatch)
    for keep in (True, False):
        base = FrozenBase(model, kinds[0].groups, keep=keep)
        step = Step(base, layout, kinds, sizes, model.device, model.dtype, recompute=recompute)
        step.start(start)
        step.accumulate(batch)
        step.update(
            update_rates(
                [1e-2], 1, [Teaching(rows, SETTINGS.model_copy(update={"weight_decay": 0.0}))]
            )
        )
        found.append((step.loss.clone(), step.adapters.clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
