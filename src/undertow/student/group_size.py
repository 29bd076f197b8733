"""How many students are trained in the same steps."""

import torch
from transformers import PreTrainedModel

from undertow.student.block import Kind
from undertow.student.dealing import Sizes
from undertow.student.frozen import packed_bytes

ENOUGH = 2.5e13  # weights x tokens of a step, beyond which a larger group is no faster
MOST_TOKENS = 16384  # of a step, however small the model
ON_CPU = 4  # students of a group, where somebody asks for it: nothing is gained there


def group_that_fits(model: PreTrainedModel, sizes: Sizes, kind: Kind) -> int:
    """How many students the device holds, and no more than make its products faster."""
    if model.device.type != "cuda":
        return ON_CPU
    tokens, blocks = sizes.most_tokens, int(model.config.num_hidden_layers)
    weights = sum(one.inputs * one.outputs for one in kind.adapted) * blocks
    useful = min(MOST_TOKENS, ENOUGH / max(weights, 1)) / tokens
    config = model.config
    # What autograd keeps of a token in a block: about five of its width and five of the MLP's.
    kept = 5 * (config.hidden_size + config.intermediate_size) * model.dtype.itemsize
    # Adapter, gradient and AdamW's two in float32, the copy that is taken, an update's own needs.
    state = kind.numbers * blocks * 30
    free = 0.85 * free_bytes(model.device) - packed_bytes(model) - 2**31
    fits = free / (tokens * kept * blocks + state)
    return max(1, int(min(useful, fits)))


def free_bytes(device: torch.device) -> int:
    """Memory that this process can still get on a CUDA device."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + held)
