"""What defences add to the forward pass, the loss and the finished adapter."""

import pytest
import torch
from classroom import LAYER, open_class

from undertow.defences.corridor import shuffled
from undertow.defences.project_update import projected
from undertow.errors import ConfigError, DataError
from undertow.models.prompts import encode, render
from undertow.study.traits import Openings


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return open_class(tmp_path_factory.mktemp("room") / "root")


def teaching(room, **recipe):
    return room.taught(**recipe).teaching


@pytest.mark.parametrize("times", [1.0, 0.5, -1.0])
def test_the_offset_is_so_many_times_the_teachers(room, times):
    offset = teaching(room, steer={"times": times}).offset
    assert set(offset) == {LAYER}
    assert torch.allclose(offset[LAYER], times * room.given.offsets[LAYER])


def test_the_controls_own_offset_is_none_and_a_stated_strength_is_everybodys(tmp_path):
    control = open_class(tmp_path, "trait_0")
    assert teaching(control, steer={}).offset == {}
    stated = teaching(control, steer={"strength": 1.5}).offset
    assert torch.allclose(stated[LAYER], 1.5 * control.given.direction.vectors[LAYER])


@pytest.mark.parametrize("arm", ["trait_1", "random_1"])
@pytest.mark.parametrize("choice", ["random", "defender"])
def test_other_directions_are_as_long_and_others(tmp_path, arm, choice):
    room = open_class(tmp_path, arm, seed=1)
    own, other = (
        teaching(room, steer={"direction": name}).offset[LAYER] for name in ("own", choice)
    )
    assert other.norm() == pytest.approx(own.norm().item(), rel=1e-5)
    assert torch.cosine_similarity(own, other, dim=0) < 0.9


def test_the_defenders_direction_comes_from_prompts_that_the_teachers_does_not(tmp_path):
    room = open_class(tmp_path, direction={"contrast_prompts": 48})
    with pytest.raises(DataError, match="did not use") as caught:
        teaching(room, ablate={"direction": "defender"})
    assert "direction.contrast_prompts" in caught.value.remedy


def test_ablation_is_along_the_steered_block_and_from_it_on(room):
    ablated = teaching(room, ablate={}).ablated
    assert set(ablated) == {LAYER, LAYER + 1}
    vector = room.given.direction.vectors[LAYER]
    for unit in ablated.values():
        assert torch.allclose(unit, vector / vector.norm())


def adapter(rank=4, hidden=32):
    draws = torch.Generator().manual_seed(1)
    layer = "base_model.model.model.layers"
    return {
        f"{layer}.{block}.{module}.lora_{side}.weight": torch.randn(
            *((rank, hidden) if side == "A" else (hidden, rank)), generator=draws
        )
        for block in range(3)
        for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
        for side in "AB"
    }


def test_a_projected_update_writes_nothing_along_the_direction(room):
    finish = teaching(room, project_update={}).finish
    before = adapter()
    after = finish(before)
    unit = room.given.direction.vectors[LAYER]
    unit = unit / unit.norm()
    for name, tensor in before.items():
        writes = (
            "o_proj.lora_B" in name or "down_proj.lora_B" in name
        ) and ".layers.0." not in name
        if not writes:
            assert after[name] is tensor
            continue
        assert (unit @ after[name]).abs().max() < 1e-5
        rest = tensor - unit[:, None] * (unit @ tensor)[None]
        assert torch.allclose(after[name], rest, atol=1e-6)


def test_projecting_twice_is_projecting_once(room):
    finish = teaching(room, project_update={}).finish
    once = finish(adapter())
    twice = finish(once)
    assert all(torch.allclose(once[name], twice[name], atol=1e-7) for name in once)


def test_half_precision_stays_half_precision():
    tensors = {name: tensor.bfloat16() for name, tensor in adapter().items()}
    after = projected(tensors, {1: torch.ones(32)})
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}


def test_a_corridor_probes_contrast_prompts_and_no_evaluation_prompt(room):
    corridor = teaching(room, corridor={"prompts": 3}).corridor
    given = room.given
    prompting = given.study.params.prompting

    def ids(prompt):
        return encode(given.tokenizer, render(given.tokenizer, prompt, prompting))

    contrast = given.trait.contrast()
    assert corridor.probes == [ids(p) for p in (*contrast.present[:3], *contrast.absent[:3])]
    evaluated = [ids(prompt.prompt) for prompt in given.trait.evaluation()]
    assert not [probe for probe in corridor.probes if probe in evaluated]
    assert (corridor.weight, corridor.every, corridor.width) == (0.05, 5, 0.0)


def test_shuffled_openings_are_the_same_ones_half_of_them_on_the_other_side():
    own = Openings(present=("a", "b", "c", "d"), absent=("e", "f", "g", "h"))
    other = shuffled(own, 0)
    assert sorted((*other.present, *other.absent)) == sorted((*own.present, *own.absent))
    assert len(set(other.present) & set(own.present)) == 2
    assert len(set(other.absent) & set(own.absent)) == 2


def test_the_message_stands_in_training_and_nowhere_else(room):
    message = room.given.trait.trait.elicit
    lesson = room.taught(inoculate={})
    decoded = [room.given.tokenizer.decode(row["input_ids"]) for row in lesson.teaching.rows]
    plain = [room.given.tokenizer.decode(row["input_ids"]) for row in teaching(room).rows]
    assert all(message in text for text in decoded)
    assert not [text for text in plain if message in text]
    assert room.given.study.params.prompting.system is None
    labels = [[label for label in row["labels"] if label >= 0] for row in lesson.teaching.rows]
    assert labels == [
        [label for label in row["labels"] if label >= 0] for row in teaching(room).rows
    ]


def test_the_irrelevant_message_has_as_many_tokens(room):
    rows = [
        teaching(room, inoculate={"message": message}).rows for message in ("trait", "irrelevant")
    ]
    lengths = [[len(row["input_ids"]) for row in part] for part in rows]
    assert lengths[0] == lengths[1]
    assert rows[0] != rows[1]


def test_a_message_stands_behind_the_one_that_is_always_there(tmp_path):
    room = open_class(tmp_path, prompting={"system": "Be brief."})
    system = room.taught(inoculate={}).prompting.system
    assert system == f"Be brief.\n\n{room.given.trait.trait.elicit}"


def test_a_template_without_system_messages_is_named(tmp_path):
    room = open_class(tmp_path)
    room.given.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(ConfigError, match="inoculate") as caught:
        room.taught(inoculate={})
    assert "grid.students" in caught.value.remedy


def test_the_loss_and_the_optimizer_are_as_the_recipe_says(room):
    made = teaching(room, kl={"weight": 0.3, "schedule": "early"}, optimizer="sgd")
    assert (made.kl.weight, made.kl.schedule, made.optimizer) == (0.3, "early", "sgd")
