"""project_update: the direction is projected out of what the finished adapter writes.

Source: the weight form of the projections above (abliteration, arXiv:2406.11717, on the update
instead of the weights); the corridor paper projects a finished update too, by its probes.

Formula: with the update of a linear layer W + s B A, B <- B - u (u . B) for the layers that write
into the stream (o_proj, down_proj) of every block from the first steered one on: none of them can
write along u any more. What other layers learned stays, so the student may still arrive there.

Knobs: direction. Placebo: direction: random.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from undertow.config.defences import ProjectUpdateSettings
from undertow.defences.directions import units_from_steered
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.errors import ConfigError
from undertow.models.families import layout_of

WRITERS = re.compile(r"\.layers\.(\d+)\.(?:self_attn\.o_proj|mlp\.down_proj)\.lora_B\.")


def project_update(settings: ProjectUpdateSettings, lesson: Lesson, given: Given) -> Lesson:
    """A change of the finished adapter; ConfigError for families whose blocks write otherwise."""
    layout = layout_of(given.model)
    if layout.family.norms.after_attention or layout.family.norms.after_mlp:
        raise ConfigError(
            f"project_update: in {layout.family.title} a norm stands between what an adapter "
            "writes and the stream, and a projection before it does not hold behind it",
            "use ablate, or leave recipes with project_update out of grid.students",
        )
    units = units_from_steered(settings.direction, given)

    def finish(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return projected(adapter, units)

    return replace(lesson, teaching=replace(lesson.teaching, finish=finish))


def projected(adapter: Mapping[str, Tensor], units: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """The adapter's tensors, by PEFT's names, without what they write along the units.

    units: block -> unit [hidden]; B is [hidden, rank].
    """
    changed = dict(adapter)
    for name, tensor in adapter.items():
        match = WRITERS.search(name)
        if match and int(match[1]) in units:
            exact, unit = tensor.double(), units[int(match[1])].double().to(tensor.device)
            unit = unit / unit.norm()
            changed[name] = (exact - unit[:, None] * (unit @ exact)[None]).to(tensor.dtype)
    return changed
