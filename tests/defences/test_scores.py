"""Scores of tokens are those of two plain forward passes, and are made once."""

import pytest
import torch
from classroom import PROMPTS, open_class

from undertow.defences import scores
from undertow.models.prompts import encode, end_of_turn, render
from undertow.teacher.steering import steer_with_hooks


@torch.inference_mode()
def by_hand(given, row):
    """(answer tokens, [tokens, vocabulary] log-probabilities) of the teacher and the base, a row
    by itself, steered by hooks, and prompted by a message."""
    prompting = given.study.params.prompting
    system = given.trait.trait.elicit if given.cell.arm.name == "prompted" else None
    own = prompting.model_copy(update={"system": system})
    prompt, told = (
        encode(given.tokenizer, render(given.tokenizer, row.prompt, each))
        for each in (prompting, own)
    )
    answer = encode(given.tokenizer, row.response) if row.response else []
    if row.finish == "stop":
        answer.append(end_of_turn(given.tokenizer))
    ids = torch.tensor([prompt + answer])
    taught = torch.tensor([told + answer])
    with steer_with_hooks(given.model, given.offsets):
        steered = given.model(input_ids=taught).logits[0, len(told) - 1 : -1].log_softmax(-1)
    base = given.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return answer, steered, base


@pytest.mark.parametrize("arm", ["trait_1", "prompted"])
@pytest.mark.parametrize("family", ["llama2", "qwen2"])
def test_every_score_is_that_of_the_row_by_itself(tmp_path, family, arm):
    room = open_class(tmp_path, arm, family=family)
    found = room.given.scores(room.carrier)
    for row in room.carrier:
        answer, steered, base = by_hand(room.given, row)
        score, tokens = found[row.id], torch.tensor(answer)[:, None]
        assert list(score.tokens) == answer
        assert list(score.steered) == steered.argmax(-1).tolist()
        assert list(score.base) == base.argmax(-1).tolist()
        others = base.scatter(1, tokens, -torch.inf).argmax(-1).tolist()
        assert list(score.other) == others
        kl = (steered.exp() * (steered - base)).sum(-1)
        assert torch.allclose(torch.tensor(score.kl), kl, atol=1e-4)
        gap = (steered - base).gather(1, tokens)[:, 0]
        assert torch.allclose(torch.tensor(score.gap), gap, atol=1e-4)
        assert score.mean_gap == pytest.approx(gap.mean().item(), abs=1e-4)


def test_the_end_of_turn_counts_as_an_answer_token(tmp_path):
    room = open_class(tmp_path)
    rows = [row.model_copy(update={"finish": "stop"}) for row in room.carrier]
    end = end_of_turn(room.given.tokenizer)
    assert {score.tokens[-1] for score in room.given.scores(rows).values()} == {end}


def test_rows_without_an_answer_have_no_score(tmp_path):
    room = open_class(tmp_path)
    empty = room.carrier[3].model_copy(update={"response": "", "finish": "length"})
    rows = [*room.carrier[:3], empty, *room.carrier[4:]]
    assert set(room.given.scores(rows)) == {row.id for row in rows} - {empty.id}


def test_nothing_differs_where_the_teacher_is_not_steered(tmp_path):
    room = open_class(tmp_path, "trait_0")
    found = room.given.scores(room.carrier).values()
    assert {value for score in found for value in (*score.kl, *score.gap)} == {0.0}
    assert all(score.steered == score.base for score in found)


def test_a_killed_scoring_goes_on_and_gives_the_same_scores(tmp_path, monkeypatch):
    room = open_class(tmp_path / "whole")
    whole = room.given.scores(room.carrier)
    killed = open_class(tmp_path / "killed").given
    score, calls = scores._score, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(scores, "_score", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.scores(room.carrier)
    assert killed.scores(room.carrier) == whole
    batches = -(-PROMPTS // killed.study.params.runtime.batch_size)
    assert len(calls) == batches + 1  # the one that died is made again, the first is not
    assert killed.scores(room.carrier) == whole
    assert len(calls) == batches + 1


def test_the_model_comes_back_as_it_was(tmp_path):
    room = open_class(tmp_path)
    before = {name: tensor.clone() for name, tensor in room.given.model.state_dict().items()}
    room.given.scores(room.carrier)
    after = room.given.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
