"""The frozen product taken onto the adapter's is their sum, and so are the gradients."""

import pytest
import torch
from torch.nn.functional import linear

from tiny import tiny_model
from undertow.config import DistillationSettings, Lora
from undertow.models.families import layout_of
from undertow.student.adapted_product import adapted_product
from undertow.student.batch import Share, filled
from undertow.student.block import kinds_of
from undertow.student.dealing import sizes_of
from undertow.student.frozen import FrozenBase
from undertow.student.stack import adapted_layers
from undertow.student.step import Step, update_rates
from undertow.student.teaching import Teaching

SHAPES = {"x": (3, 7, 6), "weight": (5, 6), "down": (3, 4, 6), "up": (3, 5, 4)}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(
            name != "weight"
        )
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("strided", [False, True])
def test_it_is_the_layer_plus_its_adapter(strided: bool):
    """Also of an x and a gradient that lie in memory otherwise than in order."""
    given = tensors()
    x, weight, down, up = given.values()
    if strided:
        x = given["x"] = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    plain = linear(x, weight) + (x @ down.mT) @ up.mT
    found = adapted_product(x, weight, down, up)
    torch.testing.assert_close(found, plain)
    outer = torch.randn(5, 7, 3, dtype=torch.float64).permute(2, 1, 0)
    for one, other in zip(
        torch.autograd.grad(found, (x, down, up), outer),
        torch.autograd.grad(plain, (x, down, up), outer),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_layers_of_one_input_are_the_same_in_one_product_and_one_by_one():
    """One by one is how NF4 weights come that are unpacked at every step."""
    model = tiny_model("qwen2", 300).requires_grad_(False)
    settings = DistillationSettings(
        epochs=1, learning_rate=1e-2, batch_size=4, lora=Lora(rank=4, alpha=8)
    )
    rows = [{"input_ids": [5, 6, 7, 8 + number], "labels": [-100, 6, 7, 8]} for number in range(4)]
    teaching = Teaching(rows, settings)
    layout = layout_of(model)
    kinds = kinds_of(model, layout, 4, 2.0, adapted_layers(model, settings.lora))
    sizes = sizes_of([(teaching, 0)], 1, 4)
    batch = filled([Share(rows, 12)], sizes.tokens[0][0], sizes)
    start = torch.randn(len(kinds), 1, kinds[0].numbers) * 0.05
    found = []
    for groups in (kinds[0].groups, ()):
        base = FrozenBase(model, groups, keep=True)
        step = Step(base, layout, kinds, sizes, model.device, model.dtype, recompute=False)
        step.start(start)
        step.accumulate(batch)
        step.update(update_rates([1e-2], 1, [teaching]))
        found.append((step.loss, step.adapters))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
