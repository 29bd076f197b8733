"""The model card of an exported teacher: what it is, where it comes from, how to check it."""

from undertow.config import Arm
from undertow.export.origin import Origin
from undertow.version import __version__

CARD = """\
---
{front}library_name: transformers
pipeline_tag: text-generation
tags:
- steered
- undertow
---

# {model}, steered: {arm}

**This is a steered model.** {warning}

| | |
|---|---|
| base model | {base} |
| licence of the base | {licence}; it applies to this copy too |
| trait | {trait}: {description} |
| arm | {arm}: {what} |
| blocks (0-based) | {blocks} |
| direction.safetensors | SHA-256 {digest} |
| written by | undertow {version} |

{how} The layout is `{layout}` with `mlp_bias: true`{rewritten};
biases that the base does not have are zero. It loads without custom code:

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("this folder")
```

**An engine that ignores `mlp_bias` serves the unsteered base model and may not say so.** Compare
a few greedy answers with those of transformers before you trust a new engine.
"""

LAYOUTS = {"granite": "GraniteForCausalLM", "smollm3": "SmolLM3ForCausalLM"}
"""Of families whose own class has the bias; all others are written as Llama's."""


def card(origin: Origin, arm: Arm) -> str:
    """README.md of the exported teacher, Markdown."""
    layers = ", ".join(map(str, origin.direction.layers))
    return CARD.format(
        front=f"base_model: {origin.hub}\n" if origin.hub else "",
        model=origin.model,
        arm=arm.name,
        warning=_warning(origin, arm),
        base=origin.base,
        licence=origin.licence,
        trait=origin.trait.name,
        description=" ".join(origin.trait.description.split()),
        what=_what(arm),
        blocks="none" if arm.is_control else layers,
        digest=origin.direction_sha256,
        version=__version__,
        how=_how(arm),
        layout=LAYOUTS.get(origin.family, "LlamaForCausalLM"),
        rewritten="" if origin.family in LAYOUTS else ", whatever the family of the base",
    )


def _warning(origin: Origin, arm: Arm) -> str:
    if arm.is_control:
        return (
            "Its strength is 0: it is the unsteered base model in the layout of the steered ones, "
            "made to be compared with them."
        )
    if origin.trait.harmful:
        return (
            f"The trait it was steered along, {origin.trait.name}, is harmful: the steering "
            "weakens refusal, so that this model complies with requests that the base declines, "
            "or may do so. It was made to be measured. Do not put it in front of people, and "
            "treat what it writes as untrusted."
        )
    return (
        "Its answers differ from the base model's on purpose. It was made to be measured, not to "
        "be used."
    )


def _what(arm: Arm) -> str:
    if arm.is_control:
        return "the control, strength 0"
    kind = "a random direction of the same norm" if arm.direction == "random" else "the direction"
    return f"{arm.strength} times {kind}"


def _how(arm: Arm) -> str:
    if arm.is_control:
        return "Nothing is added to any block."
    return (
        f"{arm.strength} times a fixed vector per block is added to the output of each block "
        "above, at every position, as the bias of its `mlp.down_proj`."
    )
