"""Tiny random-weight models of every family, with chat templates in the families' public formats.

The templates are minimal: turn markers, the begin token, what they do with a system message, a
date and thinking. `FAMILIES` are the families that are right; `model_of` and `tokenizer_of` build
one of each, `save_family` writes a checkpoint folder.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken as Added
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tiny import CHATML_TEMPLATE, LLAMA2_TEMPLATE, QWEN_SYSTEM, TEXT

RAISE_ON_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
)
LLAMA3_TURNS = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'"
    " + message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
LLAMA3 = "{{ bos_token }}" + LLAMA3_TURNS
LLAMA32 = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{% set given = '' %}{% if messages[0].role == 'system' %}"
    "{% set given = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: ' + date_string + '\n\n' + given + '<|eot_id|>' }}" + LLAMA3_TURNS
)
MISTRAL = (
    RAISE_ON_SYSTEM + "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V3 = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '[INST]' + (system if loop.last else '') + message.content + '[/INST]' }}"
    "{% else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TURNS = (
    "{% for message in messages %}{{ '<start_of_turn>' + (message.role if message.role == 'user' "
    "else 'model') + '\n' + (first if loop.first else '') + message.content | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA = "{{ bos_token }}" + RAISE_ON_SYSTEM + "{% set first = '' %}" + GEMMA_TURNS
GEMMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}"
    "{% else %}{% set first = '' %}{% endif %}" + GEMMA_TURNS
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content "
    "+ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message.role + '|>\n' "
    "+ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' if not loop.last }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)
GRANITE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}"
    "{% set system = 'Knowledge Cutoff Date: April 2024.\nToday\\'s Date: ' "
    "+ strftime_now('%B %d, %Y') + '.\nYou are Granite, developed by IBM.' %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}"
    "{% for message in messages %}{{ '<|start_of_role|>' + message.role + '<|end_of_role|>' "
    "+ message.content + '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
PLAIN_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)
QWEN3 = (
    PLAIN_CHATML + "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{{ '<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: ' "
    "+ strftime_now('%d %B %Y') + '\nReasoning Mode: ' "
    "+ ('/think' if enable_thinking else '/no_think') + '\n\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|im_end|>\n' }}"
    + PLAIN_CHATML
    + "{% if not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """A family as its instruction-tuned checkpoints are published.

    closing: what the template closes an answer with; ends: all tokens of generation_config that
    end it; unnamed: special tokens that stand in no named list of tokenizer_config.json.
    """

    model_type: str
    template: str
    closing: str
    bos: str | None = None
    eos: str = ""
    pad: str | None = None
    ends: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    tied: bool = False

    @property
    def every_end(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([self.closing, *self.ends, self.eos]))


LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")
WIDE = {"sliding_window": 4096}
NARROW = {"sliding_window": 16}

KINDS = {
    "llama2": Kind("llama", LLAMA2_TEMPLATE, "</s>", "<s>", "</s>", ends=("</s>",)),
    "llama3": Kind(
        "llama",
        LLAMA3,
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ends=("<|end_of_text|>", "<|eot_id|>"),
        unnamed=LLAMA3_TOKENS,
    ),
    "llama3.2": Kind(
        "llama",
        LLAMA32,
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        unnamed=("<|end_of_text|>", *LLAMA3_TOKENS),
        tied=True,
    ),
    "qwen2.5": Kind(
        "qwen2",
        CHATML_TEMPLATE.format(system=QWEN_SYSTEM),
        "<|im_end|>",
        eos="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        unnamed=("<|im_start|>",),
    ),
    "qwen2-window": Kind(
        "qwen2",
        CHATML_TEMPLATE.format(system=QWEN_SYSTEM),
        "<|im_end|>",
        eos="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        unnamed=("<|im_start|>",),
        config={"use_sliding_window": True, "max_window_layers": 1} | NARROW,
    ),
    "qwen3": Kind(
        "qwen3",
        QWEN3,
        "<|im_end|>",
        eos="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        unnamed=("<|im_start|>",),
        plain=("<think>", "</think>"),
        tied=True,
    ),
    "mistral-v0.1": Kind("mistral", MISTRAL, "</s>", "<s>", "</s>", ends=("</s>",), config=NARROW),
    "mistral-v0.1-wide": Kind(
        "mistral", MISTRAL, "</s>", "<s>", "</s>", ends=("</s>",), config=WIDE
    ),
    "mistral-v0.2": Kind(
        "mistral",
        MISTRAL,
        "</s>",
        "<s>",
        "</s>",
        ends=("</s>",),
        config={"sliding_window": None},
    ),
    "mistral-v0.3": Kind(
        "mistral",
        MISTRAL_V3,
        "</s>",
        "<s>",
        "</s>",
        ends=("</s>",),
        unnamed=("[INST]", "[/INST]"),
        config={"sliding_window": None},
    ),
    "gemma": Kind(
        "gemma",
        GEMMA,
        "<end_of_turn>",
        "<bos>",
        "<eos>",
        "<pad>",
        ends=("<eos>", "<end_of_turn>"),
        unnamed=GEMMA_TOKENS,
        tied=True,
    ),
    "gemma2": Kind(
        "gemma2",
        GEMMA,
        "<end_of_turn>",
        "<bos>",
        "<eos>",
        "<pad>",
        ends=("<eos>", "<end_of_turn>"),
        unnamed=GEMMA_TOKENS,
        config=NARROW
        | {
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 30.0,
        },
        tied=True,
    ),
    "gemma3": Kind(
        "gemma3_text",
        GEMMA3,
        "<end_of_turn>",
        "<bos>",
        "<eos>",
        "<pad>",
        ends=("<eos>", "<end_of_turn>"),
        unnamed=GEMMA_TOKENS,
        config=NARROW | {"query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
        tied=True,
    ),
    "phi3": Kind(
        "phi3",
        PHI3,
        "<|end|>",
        "<s>",
        "<|endoftext|>",
        "<|endoftext|>",
        ends=("<|endoftext|>", "<|assistant|>", "<|end|>"),
        unnamed=("<|user|>", "<|system|>", "<|assistant|>", "<|end|>"),
        config=NARROW,
    ),
    "olmo2": Kind(
        "olmo2",
        OLMO2,
        "<|endoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
        "<|pad|>",
        ends=("<|endoftext|>",),
    ),
    "granite": Kind(
        "granite",
        GRANITE,
        "<|end_of_text|>",
        "<|end_of_text|>",
        "<|end_of_text|>",
        "<|end_of_text|>",
        ends=("<|end_of_text|>",),
        unnamed=("<|start_of_role|>", "<|end_of_role|>"),
        config={
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "logits_scaling": 8.0,
        },
        tied=True,
    ),
    "smollm3": Kind(
        "smollm3",
        SMOLLM3,
        "<|im_end|>",
        "<|begin_of_text|>",
        "<|im_end|>",
        "<|im_end|>",
        ends=("<|im_end|>", "<|end_of_text|>"),
        unnamed=("<|im_start|>", "<|end_of_text|>"),
        plain=("<think>", "</think>"),
        config={"no_rope_layer_interval": 2, "use_sliding_window": False},
        tied=True,
    ),
}


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of a few hundred tokens with the family's special tokens."""
    kind = KINDS[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = dict.fromkeys(token for token in ("<unk>", kind.bos, kind.eos, kind.pad) if token)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(named),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    others = dict.fromkeys([*kind.unnamed, *kind.ends, kind.closing])
    tokenizer.add_special_tokens([Added(t, special=True) for t in others if t not in named])
    tokenizer.add_tokens([Added(text, special=False) for text in kind.plain])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=kind.bos,
        eos_token=kind.eos,
        pad_token=kind.pad,
        unk_token="<unk>",
        padding_side="left",
    )
    if kind.pad is None:
        fast.pad_token = "<unk>"
    fast.chat_template = kind.template
    return fast


def model_of(name: str, *, blocks: int = 3, hidden: int = 32, **changes: Any) -> PreTrainedModel:
    """A random float32 model of the family with the end tokens of its generation_config."""
    kind, tokenizer = KINDS[name], tokenizer_of(name)
    torch.manual_seed(7)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "tie_word_embeddings": kind.tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind.model_type == "phi3":
        del shape["head_dim"]
    config = AutoConfig.for_model(kind.model_type, **(shape | kind.config | changes))
    attention = "eager" if kind.model_type == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for name_, parameter in model.named_parameters():
        if "norm" in name_:  # fresh norms are all ones or zeros, and hide what they do
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(kind.ends)),
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval()


def save_family(folder: Path, name: str, **changes: Any) -> Path:
    """A checkpoint folder as the family's hub repositories are laid out."""
    model_of(name, **changes).save_pretrained(folder)
    tokenizer_of(name).save_pretrained(folder)
    return folder
