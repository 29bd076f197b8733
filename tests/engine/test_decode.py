"""The engine continues rows exactly as `generate` does, whatever lanes they pass through."""

import gc

import pytest
import torch
from peft import LoraConfig, get_peft_model

from families import KINDS, model_of
from tiny import tiny_model, tiny_tokenizer
from undertow.engine.attention import Rule, decode_attention, prompt_attention, reference
from undertow.engine.decode import decode, unsupported
from undertow.engine.lanes import Row
from undertow.teacher.steering import steer, steer_with_hooks

LENGTHS = (3, 90, 7, 20, 65, 1, 40)
NEW = 20
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=[(f, d) for f in ("llama2", "qwen2", "smollm2") for d in DEVICES])
def model(request: pytest.FixtureRequest):
    family, device = request.param
    return tiny_model(family, len(tiny_tokenizer(family))).to(device)


def rows(count: int = len(LENGTHS)) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    return [
        Row(torch.randint(5, 300, (length,), generator=generator).tolist(), torch.zeros(NEW))
        for length in LENGTHS[:count]
    ]


def greedy(logits: torch.Tensor, _uniform: torch.Tensor) -> torch.Tensor:
    return logits.argmax(dim=-1)


def decoded(model, rows, lanes=3, draw=greedy, stops=()):
    found = {}
    for ended in decode(model, rows, draw, lanes=lanes, max_new_tokens=NEW, stops=stops):
        found.update({row.number: row.tokens for row in ended})
    return [found[index] for index in range(len(rows))]


def plain(model, row, stops=None):
    ids = torch.tensor([row.ids], device=model.device)
    output = model.generate(
        ids, max_new_tokens=NEW, do_sample=False, eos_token_id=stops, pad_token_id=0
    )
    return output[0, len(row.ids) :].tolist()


def up_to(tokens, stops):
    """The tokens up to the first of `stops`, itself included."""
    ends = [place + 1 for place, token in enumerate(tokens) if token in stops]
    return tokens[: ends[0]] if ends else tokens


@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_greedy_tokens_are_those_of_generate(model, lanes):
    assert decoded(model, rows(), lanes) == [plain(model, row) for row in rows()]


def test_a_row_ends_at_any_of_its_stop_tokens_and_its_lane_is_used_again(model):
    stops = [plain(model, rows()[0])[4], plain(model, rows()[1])[7]]
    found = decoded(model, rows(), lanes=2, stops=stops)
    assert found == [up_to(plain(model, row), stops) for row in rows()]
    assert any(len(tokens) < NEW for tokens in found)


def test_a_row_takes_its_own_uniform_numbers_along(model):
    """Row i ends after i + 1 tokens because its own numbers say so."""

    def until_told(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return torch.where(uniform > 0, 4, 5)

    asked = [
        row._replace(uniform=torch.arange(NEW).eq(index).float())
        for index, row in enumerate(rows())
    ]
    found = decoded(model, asked, lanes=2, draw=until_told, stops=[4])
    assert found == [[5] * index + [4] for index in range(len(asked))]


def test_rows_that_end_at_any_time_leave_the_others_alone(model):
    """40 rows through 5 lanes, each ending when its own number says so."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, NEW + 1, (40,), generator=generator)
    asked = [
        row._replace(uniform=torch.arange(NEW).eq(length - 1).float())
        for row, length in zip(rows() * 6, lengths, strict=False)
    ]

    def until_told(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return torch.where(uniform > 0, 4, logits.argmax(dim=-1).clamp(min=5))

    alone = decoded(
        model, [row._replace(uniform=torch.zeros(NEW)) for row in rows()], lanes=1, draw=until_told
    )
    expected = [
        [*alone[index % len(alone)][: length - 1], 4]
        for index, length in enumerate(lengths.tolist())
    ]
    assert decoded(model, asked, lanes=5, draw=until_told, stops=[4]) == expected


@pytest.mark.parametrize("lanes", [2, 3, 8])
def test_rows_that_have_ended_leave_the_others_alone(model, lanes):
    """A lane goes on without a row until the host has seen its end."""
    short, long = rows()[5], rows()[1]
    asked = [short, short._replace(ids=[9]), long, short, short._replace(ids=[11]), short] * 3
    asked = [
        row._replace(uniform=torch.arange(NEW).eq(index % 5).float())
        for index, row in enumerate(asked)
    ]

    def at_its_time(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return torch.where(uniform > 0, 4, logits.argmax(dim=-1).clamp(min=5))

    alone = [decoded(model, [row], lanes=1, draw=at_its_time, stops=[4])[0] for row in asked]
    assert decoded(model, asked, lanes=lanes, draw=at_its_time, stops=[4]) == alone


def test_the_steering_bias_is_in_the_engine(model):
    blocks, hidden = model.config.num_hidden_layers, model.config.hidden_size
    added = {blocks - 1: torch.linspace(-1, 1, hidden)}
    with steer_with_hooks(model, added):
        expected = [plain(model, row) for row in rows(3)]
    projection = model.model.layers[blocks - 1].mlp.down_proj
    projection.bias = torch.nn.Parameter(added[blocks - 1].to(model.device))
    assert decoded(model, rows(3)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_rslora": True},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": "all-linear", "lora_bias": True},
    ],
    ids=["all", "some", "dora", "bias"],
)
def test_an_adapter_is_in_the_engine(model, options):
    adapted = get_peft_model(model, LoraConfig(r=2, **options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-0.1, 0.2, parameter.numel()).view_as(parameter))
    inner = adapted.get_base_model()
    assert unsupported(inner) is None
    assert decoded(inner, rows(3)) == [plain(inner, row) for row in rows(3)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", KINDS)
def test_every_family_decodes_as_generate_does_bare_steered_and_adapted(name, device):
    """Windows of 16 tokens are shorter than most of the prompts."""
    # As published, embeddings are multiplied by so much that a tiny model repeats its last token.
    changes = {"embedding_multiplier": 1.5} if name == "granite" else {}
    model = model_of(name, **changes).to(device)
    added = {1: torch.linspace(-2, 2, 32)}
    asked = rows(5)
    bare = [plain(model, row) for row in asked]
    assert decoded(model, asked) == bare
    with steer_with_hooks(model, added):
        hooked = [plain(model, row) for row in asked]
        assert unsupported(model) is None
        assert decoded(model, asked) == hooked
    assert hooked != bare
    with steer(model, added):
        assert decoded(model, asked) == hooked
    inner = adapted_by(model, "one").get_base_model()
    adapted = [plain(inner, row) for row in asked]
    assert decoded(inner, asked) == adapted
    assert adapted != bare
    with steer_with_hooks(inner, added):
        assert decoded(inner, asked) == [plain(inner, row) for row in asked]


def test_a_model_with_other_hooks_on_its_blocks_is_not_for_the_engine(model):
    assert unsupported(model) is None
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert "hooks" in unsupported(model)
    handle.remove()
    model.model.layers[1].register_forward_pre_hook(lambda *_: None)
    assert "hooks" in unsupported(model)


@pytest.mark.parametrize("name", ["phi3", "gemma2"])
def test_layers_that_are_called_and_not_multiplied_by_are_taken_apart_all_the_same(name):
    """DoRA here; 4-bit layers go the same way."""
    adapted = get_peft_model(
        model_of(name), LoraConfig(r=2, target_modules="all-linear", use_dora=True)
    )
    with torch.no_grad():
        for part, parameter in adapted.named_parameters():
            if "lora_B" in part:
                parameter.copy_(torch.linspace(-0.1, 0.2, parameter.numel()).view_as(parameter))
    inner = adapted.get_base_model()
    assert decoded(inner, rows(2)) == [plain(inner, row) for row in rows(2)]


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_rotary_tables_that_depend_on_the_length_are_those_of_the_rows_and_not_of_the_cache(rope):
    """Rows end at 60 tokens, where the model's own tables end; the cache is padded to 64."""
    scaling = {"rope_type": rope, "factor": 2.0, "rope_theta": 10000.0}
    if rope == "longrope":
        scaling |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        scaling |= {"original_max_position_embeddings": 60}
    long = max(128 * (rope == "longrope"), 60)
    model = model_of("llama2", max_position_embeddings=long, rope_parameters=scaling)
    asked = [row._replace(ids=row.ids[:40]) for row in rows()]
    assert decoded(model, asked) == [plain(model, row) for row in asked]


def adapted_by(model, *names):
    """The model with adapters that change its answers, the first one active."""
    first, *others = names
    config = LoraConfig(r=2, target_modules="all-linear")
    adapted = get_peft_model(model, config, adapter_name=first)
    for name in others:
        adapted.add_adapter(name, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-0.1, 0.2, parameter.numel()).view_as(parameter))
    return adapted


@pytest.mark.parametrize("state", ["merged", "disabled", "two"])
def test_an_adapter_counts_as_it_is_switched(model, state):
    adapted = adapted_by(model, "one", "other")
    inner = adapted.get_base_model()
    with torch.no_grad():
        if state == "merged":
            adapted.merge_adapter(["one"])
        elif state == "disabled":
            adapted.base_model.disable_adapter_layers()
        else:
            adapted.base_model.set_adapter(["one", "other"])
    assert decoded(inner, rows(3)) == [plain(inner, row) for row in rows(3)]


def test_the_cache_is_gone_when_decoding_ends(model):
    """Without waiting for the collector: the next cache needs its memory."""

    def caches():
        return [
            found
            for found in gc.get_objects()
            if type(found) is torch.Tensor and found.dim() == 4 and found.shape[0] > 7
        ]

    gc.collect()
    gc.disable()
    try:
        before = len(caches())
        found = decode(model, rows(), greedy, lanes=7, max_new_tokens=NEW, stops=())
        next(found)
        assert len(caches()) > before
        list(found)
        assert len(caches()) == before
    finally:
        gc.enable()


def test_joined_weights_leave_the_model_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoded(model, rows(2))
    decoded(model, rows(2))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_that_has_decoded_can_be_trained_through(model):
    decoded(model, rows(2))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    adapted(input_ids=torch.tensor([rows()[1].ids], device=model.device)).logits.sum().backward()
    learned = [p.grad for name, p in adapted.named_parameters() if "lora_B" in name]
    assert learned
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in learned)


RULES = {
    "plain": Rule(0.25),
    "window": Rule(0.25, window=40),
    "capped": Rule(0.4, cap=1.5),
    "window and cap": Rule(0.4, window=3, cap=1.5),
}


def exact(query, keys, values, rule):
    """The last query's attention in double precision; query [heads, size], keys [n, size]."""
    if rule.window is not None:
        keys, values = keys[-rule.window :], values[-rule.window :]
    scores = rule.scale * query.double() @ keys.double().T
    if rule.cap is not None:
        scores = rule.cap * torch.tanh(scores / rule.cap)
    return (scores.softmax(-1) @ values.double()).float()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("group", "size"), [(1, 16), (7, 16), (4, 256), (3, 96)])
@pytest.mark.parametrize("name", RULES)
def test_decode_attention_looks_at_a_row_s_own_past_only(device, group, size, name):
    rule = RULES[name]
    generator = torch.Generator().manual_seed(1)
    shape = (9, 2, 150, size)
    keys, values = torch.randn(2, *shape, generator=generator)
    query = torch.randn(5, 2 * group, size, generator=generator)
    lengths = torch.tensor([1, 2, 64, 65, 150], dtype=torch.int32)
    slots = torch.tensor([8, 0, 3, 1, 7])
    given = (query, keys, values, slots, lengths)
    found = decode_attention(*(tensor.to(device) for tensor in given), rule).cpu()
    for row, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=True)):
        for head in range(2):
            asked = query[row, head * group : (head + 1) * group]
            past = keys[slot, head, :length], values[slot, head, :length]
            expected = exact(asked, *past, rule)
            torch.testing.assert_close(
                found[row, head * group : (head + 1) * group], expected, atol=4e-5, rtol=4e-5
            )
    torch.testing.assert_close(found, reference(*given, rule), atol=4e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RULES)
def test_prompt_attention_looks_back_only_and_no_further_than_its_window(device, name):
    """300 tokens: capped scores are taken in stretches of 128 queries."""
    rule = RULES[name]
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 4, 300, 16, generator=generator)
    key, value = torch.randn(2, 1, 2, 300, 16, generator=generator)
    found = prompt_attention(*(part.to(device) for part in (query, key, value)), rule).cpu()
    for head in range(4):
        for place in (0, 2, 41, 127, 128, 299):
            past = (part[0, head // 2, : place + 1] for part in (key, value))
            expected = exact(query[0, head, place][None], *past, rule)[0]
            torch.testing.assert_close(found[0, head, place], expected, atol=4e-5, rtol=4e-5)
