"""A steered model in the Llama layout, the one layout whose MLP may carry a bias.

Steering is a bias alpha d on a block's mlp.down_proj (undertow.teacher.steering). Of the families
that it supports only Llama's class has a switch for that bias, mlp_bias, so Mistral and Qwen2
models are rewritten as Llama models: all compute the same thing once Qwen2's biases on q, k, v
are carried over (attention_bias) and no window limits the attention. Switches bring biases that
the model does not have (gate_proj, up_proj, and o_proj with attention_bias); those are zero.
Knows nothing about files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from undertow.errors import UndertowError
from undertow.teacher.steering import Offsets, steer

FAMILIES = ("llama", "mistral", "qwen2")

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


def llama_layout(model: PreTrainedModel, added: Offsets) -> LlamaForCausalLM:
    """`model` steered by `added`, as a Llama model that shares its weights; nothing is copied.

    added: block (0-based) -> [hidden]. The biases are those of `steering.steer`: summed in
    float32, rounded to the weights' type. The model is meant to be saved, not run: it holds no
    rotary tables. Raises UndertowError where the family or a setting has no equal in this layout.
    """
    check_layout(model.config)
    with steer(model, added):
        weights = model.state_dict()
    with torch.device("meta"):
        exported = LlamaForCausalLM(llama_config(model.config, weights))
    for name, parameter in exported.named_parameters():
        if name not in weights and name.endswith(".bias"):
            weights[name] = torch.zeros(parameter.shape, dtype=model.dtype)
    exported.load_state_dict(weights, assign=True)
    exported.tie_weights()
    return exported


def llama_config(config: PretrainedConfig, weights: Mapping[str, Tensor]) -> LlamaConfig:
    """The configuration of a Llama model with these weights and a bias on every MLP projection."""
    head_dim = getattr(config, "head_dim", None)
    return LlamaConfig(
        **{name: getattr(config, name) for name in CARRIED},
        head_dim=head_dim or config.hidden_size // config.num_attention_heads,
        attention_bias=any(name.endswith("q_proj.bias") for name in weights),
        mlp_bias=True,
    )


def check_layout(config: PretrainedConfig) -> None:
    """UndertowError where a model of this configuration would compute something else as Llama."""
    family = config.model_type
    if family not in FAMILIES:
        raise UndertowError(
            f"a {family} model cannot be exported as a checkpoint: its class has no bias on "
            "mlp.down_proj, and its blocks differ from Llama's",
            f"choose a model of the families {', '.join(FAMILIES)}, or export the direction: "
            "python cli.py export direction --help",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UndertowError(
            "a quantized checkpoint cannot be exported",
            "name the unquantized checkpoint under models in params.yaml; engines quantize it",
        )
    window = getattr(config, "sliding_window", None)
    # A window as long as the context cuts nothing off. Qwen2's configuration has none at all
    # unless use_sliding_window is true.
    if window is not None and window < config.max_position_embeddings:
        raise UndertowError(
            f"this {family} model attends to a sliding window of {window} tokens, which the Llama "
            "layout cannot express",
            "use a version of the model without a sliding window, or export the direction: "
            "python cli.py export direction --help",
        )
