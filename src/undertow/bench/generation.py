"""bench generate: the engine beside `generate` with a hook, and beside the device's bound."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from undertow.bench.against import Asked, Vllm
from undertow.bench.ceilings import Ceilings, measure_ceilings
from undertow.bench.shapes import build, multiplied, multiplied_by_prompts
from undertow.engine.decode import decode
from undertow.engine.lanes import Row
from undertow.engine.sampling import Sampling, draw
from undertow.models.block_kind import block_kinds
from undertow.models.families import layout_of_config
from undertow.models.memory import free_memory
from undertow.teacher.steering import Offsets, steer, steer_with_hooks

SAMPLING = Sampling(max_new_tokens=1, temperature=1.0, top_p=1.0, seed=0)
SHORTEST = 16  # of the varied lengths
VARIED_WAVES = (8, 16)  # the last rows run in an emptying batch: few rows show more of that
WARM = (SHORTEST, SHORTEST)
SMALLEST = 2  # rows: a dimension of 1 gets a kernel of its own
OUT_OF_MEMORY = "out of memory"
STOP = 0


def cases(
    shapes: Sequence[str],
    batches: Sequence[int],
    prompt: int,
    new: int,
    waves: int,
    baseline: Sequence[int],
    varied: Sequence[int],
    device: torch.device,
    *,
    baseline_new: int | None = None,
    vllm: Vllm | None = None,
) -> Iterator[dict[str, Any]]:
    """One result per shape and batch; `baseline` and `varied` name batches measured in both ways.

    Each case decodes waves x batch rows of `prompt` tokens to `new` more by sampling, the
    engine's setup included. Varied rows end after 16 to `new` tokens, drawn evenly. The baseline,
    transformers' generate, draws baseline_new tokens, as many as the engine where it is None.
    vllm: measured on the same rows, a shape's batches after the engine's, in lines of its own.
    """
    ceilings = measure_ceilings(device)
    for shape in shapes:
        model = build(shape, device)
        # Compiles; from the second batch on, kernels are those for any batch.
        _engine(model, SMALLEST, 1, prompt, new, ends=WARM)
        fitting: list[int] = []
        speeds: dict[int, float] = {}
        for batch in batches:
            try:
                _engine(model, batch, 1, prompt, new, ends=WARM)
                fitting.append(batch)
            except torch.OutOfMemoryError:
                yield {
                    "case": "generate",
                    "shape": shape,
                    "batch": batch,
                    "tokens_per_second": None,
                    "reason": OUT_OF_MEMORY,
                }
            free_memory()
        for batch in fitting:
            bound = batch * new / _least_seconds(model, batch, prompt, new, ceilings)
            free_memory()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            speed = _engine(model, batch, waves, prompt, new)
            found: dict[str, Any] = {
                "case": "generate",
                "shape": shape,
                "batch": batch,
                "prompt_tokens": prompt,
                "new_tokens": new,
                "rows": batch * waves,
                "tokens_per_second": round(speed, 1),
                "bound_tokens_per_second": round(bound, 1),
                "share_of_bound": round(speed / bound, 4),
                "peak_memory_bytes": _peak(device),
                "ceilings": ceilings._asdict(),
            }
            if batch in varied:
                found["varied"] = [
                    _varied(model, batch, more, prompt, new, speed) for more in VARIED_WAVES
                ]
            speeds[batch] = speed
            if batch in baseline:
                try:
                    plain = _generate_with_hook(model, batch, prompt, baseline_new or new)
                    found["generate_new_tokens"] = baseline_new or new
                    found["generate_with_hook_tokens_per_second"] = round(plain, 1)
                    found["ratio_to_generate_with_hook"] = round(speed / plain, 2)
                except torch.OutOfMemoryError:
                    found["ratio_to_generate_with_hook"] = None
                    found["generate_with_hook_reason"] = OUT_OF_MEMORY
            yield found
        config = model.config
        del model
        free_memory()  # vLLM takes most of the device
        for batch in fitting:
            if vllm:
                asked = Asked(batch, prompt, new, batch * waves)
                found = vllm.measured(config, asked, speeds[batch])
                yield {"case": "generate", "engine": "vllm", "shape": shape} | found


def _varied(
    model: PreTrainedModel, batch: int, waves: int, prompt: int, new: int, speed: float
) -> dict[str, float]:
    """Rows that end early, beside the `speed` of rows that do not."""
    useful = _engine(model, batch, waves, prompt, new, ends=(SHORTEST, new))
    return {
        "rows": batch * waves,
        "tokens_per_second": round(useful, 1),
        "share_of_fixed": round(useful / speed, 4),
    }


def _engine(
    model: PreTrainedModel,
    batch: int,
    waves: int,
    prompt: int,
    new: int,
    *,
    ends: tuple[int, int] | None = None,
) -> float:
    """Useful tokens per second. ends: rows end after so many tokens, drawn evenly; None: `new`."""
    generator = torch.Generator().manual_seed(1)
    count = batch * waves
    ids = torch.randint(1, model.config.vocab_size, (count, prompt), generator=generator).tolist()
    uniform = torch.rand(count, new, generator=generator)
    if ends is not None:
        lengths = torch.randint(ends[0], ends[1] + 1, (count, 1), generator=generator)
        uniform = torch.where(torch.arange(new) == lengths - 1, 2.0, uniform)

    def scripted(logits: Tensor, numbers: Tensor) -> Tensor:
        """Draws as always, but ends where the number says so and nowhere else."""
        token = draw(logits, numbers.clamp(max=0.999), SAMPLING).clamp(min=STOP + 1)
        return torch.where(numbers > 1, STOP, token)

    rows = [Row(text, numbers) for text, numbers in zip(ids, uniform, strict=True)]
    started = time.perf_counter()
    with steer(model, _offset(model)):
        tokens = sum(
            len(row.tokens)
            for ended in decode(
                model, rows, scripted, lanes=batch, max_new_tokens=new, stops=[STOP]
            )
            for row in ended
        )
    return tokens / (time.perf_counter() - started)


def _offset(model: PreTrainedModel) -> Offsets:
    """Steering of the middle block; how far does not matter here."""
    return {model.config.num_hidden_layers // 2: torch.full((model.config.hidden_size,), 0.01)}


def _generate_with_hook(model: PreTrainedModel, batch: int, prompt: int, new: int) -> float:
    """Tokens per second of transformers' own sampling under a steering hook, after a warm-up."""
    ids = torch.randint(1, model.config.vocab_size, (batch, prompt), device=model.device)
    generate: Any = model.generate
    speed = 0.0
    with steer_with_hooks(model, _offset(model)):
        for length in (4, new):
            settings = GenerationConfig(
                max_new_tokens=length, min_new_tokens=length, do_sample=True, pad_token_id=STOP
            )
            started = time.perf_counter()
            output = generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings,
                tokenizer=None,
            )
            speed = output[:, prompt:].numel() / (time.perf_counter() - started)
    return speed


def _least_seconds(
    model: PreTrainedModel, batch: int, prompt: int, new: int, ceilings: Ceilings
) -> float:
    """For one full batch: each step reads all weights and the past, or multiplies, whichever
    takes longer; the prompts are multiplied once."""
    config = model.config
    weights = multiplied(model)
    kinds = block_kinds(config, layout_of_config(config))
    size = kinds[0].head_size
    past = sum(min(prompt + new / 2, kind.window or torch.inf) for kind in kinds)
    cached = 2 * config.num_key_value_heads * size * past
    read = (weights + batch * cached) * model.dtype.itemsize / ceilings.bytes_per_second
    attended = 4 * config.num_attention_heads * size * past
    multiply = batch * (2 * weights + attended) / ceilings.flops_per_second
    prompts = batch * prompt * 2 * multiplied_by_prompts(model) / ceilings.flops_per_second
    return float(new * max(read, multiply) + prompts)


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None
