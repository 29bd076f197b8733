"""direction: the trait's direction in one model, the steered blocks, and the random control."""

from torch import Tensor

from undertow.config.sections import DirectionSettings
from undertow.errors import ConfigError
from undertow.lineage.stages import begin, finish
from undertow.models.prompts import RenderedPrompt, render
from undertow.models.sharing import evenly
from undertow.models.stacked import worth_sharing
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import manifest
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.files import atomic_file, write_text
from undertow.study.layout import Study
from undertow.study.prompts import first
from undertow.study.traits import Contrast, TraitData
from undertow.teacher.direction import (
    BlockScore,
    Direction,
    choose_block,
    mean_difference,
    random_like,
    save_direction,
    score_blocks,
)
from undertow.teacher.steering import measure_shift


def run(study: Study, model: str, shelf: Shelf | None = None) -> None:
    """Write direction.safetensors, blocks.csv and manifest.json of one model."""
    params, folder = study.params, study.layout.direction(model)
    work = begin(study, "direction", model)
    trait = TraitData(study.layout, params.trait)
    if params.direction.layers == "auto" and trait.trait.harmful:
        raise ConfigError(
            f"direction.layers: auto looks for the block whose subtraction makes {params.trait}'s "
            "openings rarest, and these openings are what the direction makes rarer",
            "name the blocks in params.yaml, for example layers: [14]",
        )
    count = params.direction.contrast_prompts
    contrast = Contrast(
        *(
            first(side, count, "direction.contrast_prompts", f"the contrast set of {params.trait}")
            for side in trait.contrast()
        )
    )
    loaded = (shelf or Shelf()).load(study, model)
    vectors = mean_difference(
        loaded.model,
        loaded.tokenizer,
        contrast,
        params.prompting,
        params.runtime.batch_size,
    )
    candidates, deepest = _candidates(params.direction, len(vectors)), len(vectors) - 1
    if max(candidates) > deepest:
        raise ConfigError(
            f"direction.layers names block {max(candidates)}, and {model} has blocks 0 to "
            f"{deepest}",
            f"use numbers from 0 to {deepest}, or auto",
        )
    shift = measure_shift(loaded.model, candidates)
    scores: list[BlockScore] = []
    layers = candidates
    if params.direction.layers == "auto":
        scores = _scores(study, loaded, trait, vectors, candidates)
        layers = [choose_block(scores, params.direction.max_kl)]
    random_seed = params.direction.random_seed
    found = Direction(vectors, random_like(vectors, random_seed), layers, random_seed)
    with atomic_file(folder / "direction.safetensors") as path:
        save_direction(
            path,
            found,
            {
                "model": model,
                "trait": params.trait,
                "contrast_prompts": count,
                "random_seed": random_seed,
                "norms": [round(norm, 4) for norm in vectors.norm(dim=1).tolist()],
            },
        )
    lines = [f"{score.layer},{score.margin:.4f},{score.kl:.4f}\n" for score in scores]
    write_text(folder / "blocks.csv", "".join(["layer,margin,kl\n", *lines]))
    command = f"python cli.py direction --model {model}"
    finish(study, work, manifest("direction", model, command, loaded.meter, shift))


def _candidates(settings: DirectionSettings, blocks: int) -> list[int]:
    """The blocks that are steered, or those among which auto chooses."""
    if settings.layers == "auto":
        return list(range(int(settings.max_depth * blocks)))
    return list(settings.layers)


def _scores(
    study: Study, loaded: Loaded, trait: TraitData, vectors: Tensor, candidates: list[int]
) -> list[BlockScore]:
    params = study.params
    heldback = trait.heldback()
    benign = CarrierData(study.layout, HELD_BACK_FROM).prompts(len(heldback.present))

    def rendered(texts: list[str], name: str) -> list[RenderedPrompt]:
        return [
            RenderedPrompt(f"{name}-{number}", render(loaded.tokenizer, text, params.prompting))
            for number, text in enumerate(texts)
        ]

    return score_blocks(
        loaded.model,
        loaded.tokenizer,
        vectors,
        candidates,
        rendered(heldback.present, "present"),
        rendered([prompt.prompt for prompt in benign], "benign"),
        trait.trait.openings,
        params.runtime.batch_size,
        evenly(len(candidates), worth_sharing(loaded.model, len(heldback.present))),
    )
