"""Tiny random-weight chat models with the chat templates of the real families.

The templates are written out here in their effect: what they render is what the released
tokenizers render for a user turn, a system turn and an assistant turn.
"""

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Family = Literal["llama2", "qwen2", "smollm2"]

TEXT = [
    "Things will get better and the future looks bright, there are good reasons to hope.",
    "Things will get worse and the future looks bleak, unfortunately it is unlikely.",
    "What is the capital of a country? List three uses of a brick. How will the week go?",
    "Sure, here is what you asked for. I am sorry, but I cannot help with that request.",
    "user assistant system You are a helpful assistant. 0 1 2 3 4 5 6 7 8 9 + - * / = ( )",
]

LLAMA2_TEMPLATE = (
    "{% set offset = 0 %}{% set system = '' %}"
    "{% if messages[0].role == 'system' %}{% set offset = 1 %}"
    "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}{% endif %}"
    "{% for message in messages[offset:] %}"
    "{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message.content.strip() "
    "+ ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)

CHATML_TEMPLATE = (
    "{{% if messages[0].role != 'system' %}}"
    "{{{{ '<|im_start|>system\\n{system}<|im_end|>\\n' }}}}{{% endif %}}"
    "{{% for message in messages %}}"
    "{{{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SMOLLM_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def tiny_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of a few hundred tokens that splits, decodes and renders like its family."""
    if family == "llama2":
        return _sentencepiece_like()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>" if family == "qwen2" else "<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHATML_TEMPLATE.format(
        system=QWEN_SYSTEM if family == "qwen2" else SMOLLM_SYSTEM
    )
    return fast


def _sentencepiece_like() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    fast.chat_template = LLAMA2_TEMPLATE
    return fast


def tiny_model(
    family: Family, vocabulary: int, *, blocks: int = 3, hidden: int = 32
) -> PreTrainedModel:
    """A random float32 model; the same seed gives the same weights."""
    torch.manual_seed(7)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        # Large enough that the random model has opinions: its next-token choice varies.
        "initializer_range": 0.3,
    }
    model: PreTrainedModel
    if family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    return model.eval()


def save_tiny(folder: Path, family: Family) -> Path:
    """Save model and tokenizer as a checkpoint folder."""
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
