# mypy: ignore-errors
"""Run by an interpreter that has vLLM, and need not have us: one JSON argument in, one line out."""

import json
import random
import sys
import time
from pathlib import Path

WARM = 16  # tokens of the warm-up


def main() -> None:
    from vllm import LLM, SamplingParams

    asked = json.loads(sys.argv[1])
    started = time.perf_counter()
    llm = LLM(
        model=asked["folder"],
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=asked["prompt"] + asked["new"],
        max_num_seqs=asked["batch"],
        enable_prefix_caching=False,
        seed=0,
    )
    start_seconds = time.perf_counter() - started
    config = Path(asked["folder"], "config.json").read_text(encoding="utf-8")
    vocabulary = json.loads(config)["vocab_size"]
    numbers = random.Random(1)
    prompts = [
        {"prompt_token_ids": [numbers.randrange(1, vocabulary) for _ in range(asked["prompt"])]}
        for _ in range(asked["rows"])
    ]

    def tokens(rows, count):
        settings = SamplingParams(
            temperature=1.0, max_tokens=count, ignore_eos=True, detokenize=False, seed=None
        )
        found = llm.generate(rows, settings, use_tqdm=False)
        return sum(len(row.outputs[0].token_ids) for row in found)

    tokens(prompts[: asked["batch"]], WARM)
    started = time.perf_counter()
    drawn = tokens(prompts, asked["new"])
    speed = drawn / (time.perf_counter() - started)
    print(
        json.dumps({"tokens_per_second": round(speed, 1), "start_seconds": round(start_seconds, 1)})
    )


if __name__ == "__main__":
    main()
