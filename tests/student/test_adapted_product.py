"""The frozen product taken onto the adapter's is their sum, and so are the gradients."""

import pytest
import torch
from torch.nn.functional import linear

from undertow.student.adapted_product import adapted_product

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
