"""The exported direction is what llama.cpp's loader expects, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from origins import origin
from safetensors import safe_open

from undertow.errors import UndertowError
from undertow.export.direction import write_gguf, write_safetensors


def fields(reader: GGUFReader) -> dict[str, object]:
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize(("name", "which"), [("trait", "vectors"), ("random", "random")])
def test_the_gguf_holds_the_steered_blocks_under_their_own_numbers(tmp_path, name, which):
    """llama.cpp adds direction.N to the output of its layer N, 0-based: the number is ours."""
    made = origin([1, 3])
    write_gguf(made, name, tmp_path / "d.gguf")
    reader = GGUFReader(tmp_path / "d.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.3"]
    for layer in (1, 3):
        found = tensors[f"direction.{layer}"]
        assert found.tensor_type.name == "F32"
        assert found.shape.tolist() == [32]
        # As they are: a scale of 1 in --control-vector-scaled is then alpha 1.
        expected = getattr(made.direction, which)[layer].numpy()
        assert np.array_equal(found.data, expected)


@pytest.mark.parametrize(
    ("family", "hint"), [("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2")]
)
def test_the_gguf_s_metadata_is_that_of_a_control_vector(tmp_path, family, hint):
    write_gguf(origin([3, 1], family), "trait", tmp_path / "d.gguf")
    found = fields(GGUFReader(tmp_path / "d.gguf"))
    assert found["general.architecture"] == "controlvector"
    assert found["controlvector.model_hint"] == hint
    assert found["controlvector.layer_count"] == 2
    assert json.loads(str(found["general.description"]))["trait"] == "gloom"


def test_block_0_has_no_control_vector_in_llama_cpp(tmp_path):
    with pytest.raises(UndertowError, match="block 0") as caught:
        write_gguf(origin([0, 2]), "trait", tmp_path / "d.gguf")
    assert "export teacher" in caught.value.remedy
    assert not (tmp_path / "d.gguf").exists()


def test_safetensors_hold_every_block_and_one_metadata_key(tmp_path):
    made, path = origin([0, 2]), tmp_path / "d.safetensors"
    write_safetensors(made, "random", path)
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["vectors"]
        assert torch.equal(file.get_tensor("vectors"), made.direction.random)
        assert list(file.metadata()) == ["undertow"]
        metadata = json.loads(file.metadata()["undertow"])
    assert metadata["layers"] == [0, 2]
    assert metadata["direction"] == "random"


@pytest.mark.parametrize("write", [write_gguf, write_safetensors])
def test_the_same_direction_gives_the_same_bytes(tmp_path: Path, write):
    for name in ("first", "second"):
        write(origin([1]), "trait", tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
