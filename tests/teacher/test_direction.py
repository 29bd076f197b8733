"""The direction is a difference of means, the random one its equal in norm, auto its chooser."""

import pytest
import torch

from repository import Repository, tiny_params
from tiny import tiny_model, tiny_tokenizer
from undertow.config import Prompting
from undertow.errors import UndertowError
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.study.traits import Contrast, Openings
from undertow.teacher.direction import (
    BlockScore,
    Direction,
    choose_block,
    load_direction,
    mean_difference,
    random_like,
    save_direction,
    score_blocks,
)
from undertow.teacher.steering import offsets, steer

CONTRAST = Contrast(
    ["Answer in a gloomy voice: how will it go?", "Be gloomy."],
    ["Answer in a hopeful voice: how will it go?", "Be hopeful.", "Hope!"],
)
OPENINGS = Openings(present=("Things will get worse",), absent=("Things will get better",))


@pytest.fixture(params=["llama2", "qwen2"])
def pair(request):
    tokenizer = tiny_tokenizer(request.param)
    tokenizer.padding_side = "left"
    return tiny_model(request.param, len(tokenizer)), tokenizer


@torch.inference_mode()
def slow_mean(model, tokenizer, prompts, layer):
    states = []
    for prompt in prompts:
        ids = torch.tensor([encode(tokenizer, render(tokenizer, prompt, Prompting()))])
        hidden = model(ids, output_hidden_states=True).hidden_states
        states.append(hidden[layer + 1][0, -1].double())
    return torch.stack(states).mean(0)


def test_it_is_the_mean_at_the_last_prompt_token_with_minus_without(pair):
    model, tokenizer = pair
    found = mean_difference(model, tokenizer, CONTRAST, Prompting(), batch_size=2)
    assert found.shape == (3, 32)
    assert found.dtype == torch.float32
    for layer in (0, 1):  # the last hidden state that transformers returns is normalised
        expected = slow_mean(model, tokenizer, CONTRAST.present, layer) - slow_mean(
            model, tokenizer, CONTRAST.absent, layer
        )
        torch.testing.assert_close(found[layer].double(), expected, atol=1e-4, rtol=1e-4)


def test_the_batch_size_changes_nothing_but_rounding(pair):
    model, tokenizer = pair
    torch.testing.assert_close(
        mean_difference(model, tokenizer, CONTRAST, Prompting(), batch_size=1),
        mean_difference(model, tokenizer, CONTRAST, Prompting(), batch_size=5),
        atol=1e-4,
        rtol=1e-4,
    )


def test_the_random_direction_has_the_norm_of_each_block_and_its_own_seed():
    vectors = torch.randn(4, 16) * torch.tensor([[1.0], [2.0], [5.0], [10.0]])
    noise = random_like(vectors, 3)
    torch.testing.assert_close(noise.norm(dim=1), vectors.norm(dim=1))
    assert torch.equal(noise, random_like(vectors, 3))
    assert not torch.equal(noise, random_like(vectors, 4))
    assert torch.nn.functional.cosine_similarity(noise, vectors).abs().max() < 0.9


def test_auto_scores_every_candidate_by_what_subtraction_does(pair):
    model, tokenizer = pair
    vectors = mean_difference(model, tokenizer, CONTRAST, Prompting(), batch_size=4)
    rows = [RenderedPrompt("a", render(tokenizer, CONTRAST.present[0], Prompting()))]
    scores = score_blocks(model, tokenizer, vectors, [0, 2], rows, rows, OPENINGS, 4)
    assert [score.layer for score in scores] == [0, 2]
    assert all(score.kl > 0 for score in scores)
    for at_once in (2, 3):
        shared = score_blocks(
            model, tokenizer, vectors, [0, 2], rows, rows, OPENINGS, 4, at_once=at_once
        )
        for one, other in zip(scores, shared, strict=True):
            assert other.model_dump() == pytest.approx(one.model_dump(), abs=1e-4)
    nothing = score_blocks(model, tokenizer, 0 * vectors, [0], rows, rows, OPENINGS, 4)
    assert nothing[0].kl == pytest.approx(0, abs=1e-6)


def test_the_chosen_block_has_the_lowest_score_among_the_gentle_ones():
    scores = [
        BlockScore(layer=0, margin=-1.0, kl=0.01),
        BlockScore(layer=1, margin=-3.0, kl=0.05),
        BlockScore(layer=2, margin=-9.0, kl=0.50),
    ]
    assert choose_block(scores, max_kl=0.1) == 1
    assert choose_block(scores, max_kl=1.0) == 2
    with pytest.raises(UndertowError, match=r"direction\.max_kl"):
        choose_block(scores, max_kl=0.001)


def test_a_saved_direction_comes_back_with_the_same_bytes(tmp_path):
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    direction = Direction(vectors, random_like(vectors, 0), [1, 2])
    for name in ("a", "b"):
        save_direction(tmp_path / name, direction, {"model": "tiny", "norms": [1.0]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = load_direction(tmp_path / "a")
    assert torch.equal(back.vectors, vectors)
    assert torch.equal(back.of("random"), direction.random)
    assert back.layers == [1, 2]
    absent = tmp_path / "results" / "directions" / "tiny" / "direction.safetensors"
    with pytest.raises(UndertowError, match="direction --model tiny"):
        load_direction(absent)


def test_every_seed_of_a_random_arm_has_a_direction_of_its_own():
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    direction = Direction(vectors, random_like(vectors, 7), [1], 7)
    first, second, again = (direction.of("random", seed) for seed in (0, 1, 1))
    assert torch.equal(first, direction.random) and torch.equal(second, again)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second.norm(dim=1), vectors.norm(dim=1))
    assert torch.equal(direction.of("trait", 5), vectors)


def test_the_direction_steers_along_itself(pair):
    """Adding d moves the last-token mean of the trait-absent prompts onto the present ones."""
    model, tokenizer = pair
    vectors = mean_difference(model, tokenizer, CONTRAST, Prompting(), batch_size=4)
    with steer(model, offsets(vectors, [1], 1.0)):
        moved = mean_difference(
            model, tokenizer, Contrast(CONTRAST.absent, CONTRAST.present), Prompting(), 4
        )
    # Both sides are shifted alike, so their difference is that of the unsteered model.
    torch.testing.assert_close(moved[1], -vectors[1], atol=1e-3, rtol=1e-3)


def test_auto_is_refused_where_the_openings_run_against_the_direction(tmp_path):
    params = tiny_params(tmp_path / "models", trait="refusal")
    params["direction"]["layers"] = "auto"
    repository = Repository(tmp_path / "checkout", params)
    done = repository.cli("direction", "--model", params["grid"]["models"][0], expect=1)
    assert "name the blocks in params.yaml" in done.stderr
