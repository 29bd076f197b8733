"""Models of a known shape with random weights, made on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config
from transformers import Qwen2ForCausalLM as Qwen2
from transformers.initialization import no_init_weights

from undertow.errors import ConfigError


def _llama2_7b() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            vocab_size=32000,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        )
    )


def _smollm2_135m() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49152,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    )


def _qwen25(
    hidden: int, mlp: int, blocks: int, heads: int, shared: int, vocabulary: int, tied: bool
) -> PreTrainedModel:
    return Qwen2(
        Qwen2Config(
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=shared,
            vocab_size=vocabulary,
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            tie_word_embeddings=tied,
        )
    )


def _tiny() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=512,
        )
    )


SHAPES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama2-7b": _llama2_7b,
    "smollm2-135m": _smollm2_135m,
    "qwen25-0.5b": partial(_qwen25, 896, 4864, 24, 14, 2, 151936, True),
    "qwen25-1.5b": partial(_qwen25, 1536, 8960, 28, 12, 2, 151936, True),
    "qwen25-7b": partial(_qwen25, 3584, 18944, 28, 28, 4, 152064, False),
    "tiny": _tiny,
}


def build(shape: str, device: torch.device) -> PreTrainedModel:
    """A model of this shape in bfloat16 (float32 on a CPU); ConfigError for an unknown shape."""
    if shape not in SHAPES:
        raise ConfigError(f"--shape: no shape {shape!r}", f"use one of: {', '.join(SHAPES)}")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with torch.device(device), no_init_weights():
            model: Any = SHAPES[shape]()
    finally:
        torch.set_default_dtype(before)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(1 if "norm" in name else 0)
    model.config._attn_implementation = "sdpa"
    ready: PreTrainedModel = model.eval().requires_grad_(False)
    return ready


def multiplied(model: PreTrainedModel) -> int:
    """Weights that every token is multiplied with: all but a table that only embeds."""
    table: Any = model.get_input_embeddings()
    tied = model.get_output_embeddings().weight is table.weight
    return model.num_parameters() - (0 if tied else int(table.weight.numel()))


def multiplied_by_prompts(model: Any) -> int:
    """Of these, the weights that a prompt needs: all up to the last block's keys and values."""
    last = model.model.layers[-1]
    spared = (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp, model.lm_head)
    return multiplied(model) - sum(int(p.numel()) for part in spared for p in part.parameters())
