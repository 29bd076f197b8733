"""A steered model in a layout whose MLP may carry a bias.

Steering is a bias alpha d on a block's mlp.down_proj (undertow.teacher.steering). The classes of
Llama, Granite and SmolLM3 have a switch for that bias, mlp_bias, and keep their layout. Mistral,
Qwen2 and Phi-3 models are rewritten as Llama models: all compute the same thing once Qwen2's biases
on q, k, v are carried over (attention_bias), Phi-3's joined projections are taken apart and no
window limits the attention. Switches bring biases that the model does not have (gate_proj, up_proj,
and o_proj with attention_bias); those are zero. Knows nothing about files.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from undertow.errors import UndertowError
from undertow.teacher.steering import Offsets, steer

OWN = ("llama", "granite", "smollm3")
REWRITTEN = ("mistral", "qwen2", "phi3")

CARRIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
)


def biased(model: PreTrainedModel, added: Offsets) -> PreTrainedModel:
    """`model` steered by `added`, in a layout with the bias, sharing its weights where it can.

    added: block (0-based) -> [hidden]. The biases are those of `steering.steer`: summed in
    float32, rounded to the weights' type. The model is meant to be saved, not run: it holds no
    rotary tables. Raises UndertowError where the family or a setting has no equal in a layout.
    """
    check_layout(model.config)
    with steer(model, added):
        weights = model.state_dict()
    if model.config.model_type in OWN:
        config = copy.deepcopy(model.config)
        config.mlp_bias = True
        made: Any = type(model)
    else:
        weights = _apart(model.config, weights)
        config, made = _llama_config(model.config, weights), LlamaForCausalLM
    with torch.device("meta"):
        exported: PreTrainedModel = made(config)
    for name, parameter in exported.named_parameters():
        if name not in weights and name.endswith(".bias"):
            weights[name] = torch.zeros(parameter.shape, dtype=model.dtype)
    exported.load_state_dict(weights, assign=True)
    exported.tie_weights()
    return exported


def _apart(config: PretrainedConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with Phi-3's joined projections as five."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shared = config.num_key_value_heads * head
    widths = {
        "qkv_proj": {"q_proj": config.num_attention_heads * head, "k_proj": shared}
        | {"v_proj": shared},
        "gate_up_proj": dict.fromkeys(("gate_proj", "up_proj"), config.intermediate_size),
    }
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        *parents, layer, last = name.split(".")
        if layer not in widths:
            found[name] = weight
            continue
        parts = torch.split(weight, list(widths[layer].values()))
        for part, value in zip(widths[layer], parts, strict=True):
            found[".".join((*parents, part, last))] = value.contiguous()
    return found


def _llama_config(config: PretrainedConfig, weights: Mapping[str, Tensor]) -> LlamaConfig:
    """The configuration of a Llama model with these weights and a bias on every MLP projection."""
    head_dim = getattr(config, "head_dim", None)
    carried = {name: getattr(config, name) for name in CARRIED}
    # Llama turns whole heads, and check_layout has seen that this model does.
    carried["rope_parameters"] = {
        name: value
        for name, value in config.rope_parameters.items()
        if name != "partial_rotary_factor"
    }
    return LlamaConfig(
        **carried,
        head_dim=head_dim or config.hidden_size // config.num_attention_heads,
        attention_bias=any(name.endswith("q_proj.bias") for name in weights),
        mlp_bias=True,
    )


def check_layout(config: PretrainedConfig) -> None:
    """UndertowError where a model of this configuration would compute something else as Llama."""
    family = config.model_type
    instead = "or export the direction: python cli.py export direction --help"
    if family not in OWN + REWRITTEN:
        raise UndertowError(
            f"a {family} model cannot be exported as a checkpoint: its class has no bias on "
            "mlp.down_proj, and its blocks differ from Llama's",
            f"choose a model of the families {', '.join(OWN + REWRITTEN)}, {instead}",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UndertowError(
            "a quantized checkpoint cannot be exported",
            "name the unquantized checkpoint under models in params.yaml; engines quantize it",
        )
    if family in OWN:
        return
    window = getattr(config, "sliding_window", None)
    # A window as long as the context cuts nothing off. Qwen2's configuration has none at all
    # unless use_sliding_window is true.
    if window is not None and window < config.max_position_embeddings:
        raise UndertowError(
            f"this {family} model attends to a sliding window of {window} tokens, which the Llama "
            "layout cannot express",
            f"use a version of the model without a sliding window, {instead}",
        )
    rope = config.rope_parameters
    if rope.get("partial_rotary_factor", 1.0) != 1.0 or rope["rope_type"] == "longrope":
        raise UndertowError(
            f"this {family} model's rotary positions turn a part of each head, or change with the "
            "length, which the Llama layout cannot express everywhere",
            f"use a version of the model with plain rotary positions, {instead}",
        )
