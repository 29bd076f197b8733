"""Which families can be exported as a checkpoint, and that it stops where the study does."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from families import KINDS, model_of, save_family, tokenizer_of
from undertow.config import Prompting
from undertow.engine.generate import generate
from undertow.engine.sampling import Sampling
from undertow.errors import UndertowError
from undertow.export.layouts import check_layout
from undertow.export.teacher import write
from undertow.models.loading import load_model
from undertow.models.prompts import RenderedPrompt, encode, render
from undertow.teacher.steering import steer, steer_with_hooks

LONG = {
    "original_max_position_embeddings": 256,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
    },
}
EXPORTED = (
    *("llama2", "llama3", "llama3.2", "qwen2.5", "mistral-v0.2", "mistral-v0.3"),
    *("granite", "smollm3", "phi4"),
)
CHANGED = {
    "phi4": ("phi3", {"sliding_window": None}),
    "phi3-longrope": ("phi3", {"sliding_window": None} | LONG),
    "phi4-mini": ("phi3", {"sliding_window": None, "partial_rotary_factor": 0.5}),
}
WIDE = ("mistral-v0.1-wide",)  # its window is longer than its context


@pytest.mark.parametrize("name", EXPORTED)
def test_the_exported_teacher_answers_and_stops_as_the_study_s(name, tmp_path: Path):
    kind, changes = CHANGED.get(name, (name, {}))
    base = save_family(tmp_path / "base", kind, **changes)
    (base / "generation_config.json").write_text("{}")  # the template's own token counts too
    model, tokenizer = load_model(base, "float32", torch.device("cpu")), tokenizer_of(kind)
    added = {1: torch.linspace(-1, 1, 32)}
    asked = [RenderedPrompt("p", render(tokenizer, "How will it go?", Prompting()))]
    with steer(model, added):
        (block,) = generate(model, tokenizer, asked, Sampling(16, 0.0, 1.0, 0), 1)
    ids = torch.tensor([encode(tokenizer, asked[0].text)])
    with steer_with_hooks(model, added):
        expected = model(ids).logits.detach()
    write(model, added, base, "card", tmp_path / "teacher")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
    named = exported.generation_config.eos_token_id
    found = tokenizer.convert_ids_to_tokens(named if isinstance(named, list) else [named])
    assert set(found) == {KINDS[kind].closing, KINDS[kind].eos}
    torch.testing.assert_close(exported(ids).logits, expected, atol=1e-4, rtol=1e-4)
    drawn = exported.generate(ids, max_new_tokens=16, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(drawn, skip_special_tokens=True)
    assert text == block.completions[0].text


@pytest.mark.parametrize("name", KINDS)
def test_what_has_no_equal_in_the_layout_is_refused(name):
    config = model_of(name).config
    if name in EXPORTED or name in WIDE:
        check_layout(config)
        return
    with pytest.raises(UndertowError, match=r"cannot be exported|sliding window"):
        check_layout(config)


@pytest.mark.parametrize("name", ["phi3-longrope", "phi4-mini"])
def test_rotary_positions_that_llama_does_not_have_are_refused(name):
    kind, changes = CHANGED[name]
    with pytest.raises(UndertowError, match="rotary positions") as caught:
        check_layout(model_of(kind, **changes).config)
    assert "export direction" in str(caught.value)
