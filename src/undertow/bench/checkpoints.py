"""Checkpoints of a known shape with random weights, and tokenizers as large as theirs."""

import re
from itertools import chain, count, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from undertow.bench.shapes import Shape, build
from undertow.models.memory import free_memory
from undertow.study.found import read_rows
from undertow.study.prompts import Prompt

SPACE = "\u0120"  # how byte-level tokenizers write it


class Manner(NamedTuple):
    """How a tokenizer frames a chat: the template, and its special pieces.

    The templates are written out in their effect on a user's and an assistant's turn.
    """

    template: str
    special: tuple[str, ...] = ("<unk>", "<s>", "</s>")
    unknown: str | None = "<unk>"
    start: str | None = "<s>"
    stop: str = "</s>"
    pad: str = "<unk>"


PLAIN = Manner(
    "{% for message in messages %}{{ message.role + ': ' + message.content + ' ' + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
LLAMA2 = Manner(
    "{% set offset = 0 %}{% set system = '' %}{% if messages[0].role == 'system' %}"
    "{% set offset = 1 %}"
    "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}{% endif %}"
    "{% for message in messages[offset:] %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message.content.strip() "
    "+ ' [/INST]' }}{% else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
QWEN = Manner(
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are Qwen, created by "
    "Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    unknown=None,
    start=None,
    stop="<|im_end|>",
    pad="<|endoftext|>",
)


def write_checkpoint(
    folder: Path, shape: str | Shape, benign: Path, device: torch.device, manner: Manner = PLAIN
) -> int:
    """Write a checkpoint of the shape; returns the number of its blocks.

    The weights are made on the device and leave it again. benign: the prompts whose words the
    tokenizer knows.
    """
    model = build(shape, device)
    blocks = int(model.config.num_hidden_layers)
    tokenizer = tokenizer_of_size(benign, model.config.vocab_size, manner)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, max_shard_size="5GB")  # as those on the hub are
    tokenizer.save_pretrained(folder)
    del model
    free_memory()
    return blocks


def tokenizer_of_size(benign: Path, size: int, manner: Manner = PLAIN) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` pieces: bytes, the words of the prompts, and made-up words.

    What a model writes at random comes back as the same number of tokens when it is read: every
    piece but the bytes is a space and letters, and so is every beginning of it. It is the kind
    (byte pairs) that transformers makes of any tokenizer beside a Qwen2 model.
    """
    text = [row.prompt for row in read_rows(benign, Prompt)]
    words = {word for prompt in text for word in re.findall("[A-Za-z]+", prompt)}
    first = [*manner.special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    known = {word[:end] for word in words for end in range(1, len(word) + 1)}
    grown = dict.fromkeys(sorted(known, key=lambda word: (len(word), word)))
    lengths = (product(ascii_lowercase, repeat=length) for length in count(1))
    made_up = map("".join, chain.from_iterable(lengths))
    while len(first) + len(grown) < size:
        grown[next(made_up)] = None
    pieces = [SPACE + word for word in islice(grown, size - len(first))]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(first + pieces)},
            merges=[(piece[:-1], piece[-1]) for piece in pieces],
            unk_token=manner.unknown,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=manner.unknown,
        bos_token=manner.start,
        eos_token=manner.stop,
        pad_token=manner.pad,
        chat_template=manner.template,
    )
    named = {manner.unknown, manner.start, manner.stop, manner.pad}
    fast.add_special_tokens(
        {"additional_special_tokens": [each for each in manner.special if each not in named]}
    )
    return fast
