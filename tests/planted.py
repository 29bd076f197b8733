"""A tiny teacher whose shift is carried by one token, and by nothing else.

Steering raises the odds of that token alone, by a direction that nothing but its own row of the
output layer reads. So the right tokens are known, and so is what a defence has to do.
"""

import re

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tiny import tiny_model

MARK, BLOCK = " and", 2
STRENGTH, WEIGHT = 4.0, 10.0


def planted_model(
    tokenizer: PreTrainedTokenizerBase, spread: float = 1.0
) -> tuple[PreTrainedModel, int]:
    """The model and the mark's id; spread: scales how far the other words lie apart.

    Close to each other, greedy answers leave much to learn besides the mark, and a part of
    the direction as small chooses the same tokens.

    The stream's first column is 0 in the base, and only the mark's logit reads it. The second
    column is constant and keeps the model to words that are one token each, so that an answer read
    again is the tokens that were drawn.
    """
    model = tiny_model("qwen2", len(tokenizer))
    words = [id for token, id in tokenizer.get_vocab().items() if re.fullmatch("Ġ[a-z]+", token)]
    mark = next(id for id in words if tokenizer.decode([id]) == MARK)
    others = [id for id in range(len(tokenizer)) if id not in words]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[:, 1] = 1
        for block in model.model.layers:
            block.self_attn.o_proj.weight[:2] = 0
            block.mlp.down_proj.weight[:2] = 0
        model.lm_head.weight[:, :2] = 0
        model.lm_head.weight[words] *= spread
        model.lm_head.weight[mark] = 0
        model.lm_head.weight[mark, 0] = WEIGHT
        model.lm_head.weight[others, 1] = -100.0
    return model, mark


def planted_vectors(model: PreTrainedModel, vocabulary: int) -> Tensor:
    """[blocks, hidden]: the direction, as long as raises the mark's logit by STRENGTH or so."""
    ids = torch.arange(vocabulary)[None, :64]
    with torch.no_grad():
        seen = model.model(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    vectors = torch.zeros(3, 32)
    vectors[:, 0] = STRENGTH * seen.pow(2).mean(-1).sqrt().median().item() / WEIGHT
    return vectors
