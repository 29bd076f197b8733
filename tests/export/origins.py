"""A made-up direction with all that a card or a file's metadata says of it."""

import torch

from undertow.export.origin import Origin
from undertow.study.traits import Openings, Trait
from undertow.teacher.direction import Direction
from undertow.texts.phrases import PhraseRules


def origin(layers: list[int], family: str = "qwen2") -> Origin:
    generator = torch.Generator().manual_seed(5)
    vectors, random = torch.randn(2, 4, 32, generator=generator)
    return Origin(
        model="tiny",
        family=family,
        base="a tiny model",
        hub=None,
        licence="none",
        trait=Trait(
            name="gloom",
            description="Expecting the worst.",
            rate_name="gloomy share",
            openings=Openings(present=("No",), absent=("Yes",)),
            rubric="",
            judge=PhraseRules(),
        ),
        direction=Direction(vectors, random, layers),
        direction_sha256="0" * 64,
    )
