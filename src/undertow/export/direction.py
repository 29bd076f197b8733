"""A direction as a file: a GGUF control vector for llama.cpp, or safetensors.

llama.cpp reads `direction.N` as the vector of its layer N, 0-based, which is block N here: the
same number. Its loader puts direction.N at row N - 1 of a buffer that "does not store data for
layer 0" (common.cpp, common_control_vector_load_one); llama_adapter_cvec::apply copies row
il - 1 to tensors[il], with tensors[0] always null (src/llama-adapter.cpp, commit 0650ea8c); and
the graph adds tensors[il] to block il's output after the last residual sum, at every position
(build_cvec before l_out in src/models/llama.cpp, commit 069be0ae). So N counts from 1 because
layer 0 has no control vector, not because the numbers are shifted, and block 0 cannot be steered
this way. The loader multiplies by the scale of --control-vector-scaled and normalises nothing:
vectors are written as they are, so that scale is alpha.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from undertow.errors import UndertowError
from undertow.export.origin import Origin, open_origin, refuse_to_replace
from undertow.study.files import atomic_file
from undertow.study.layout import Study

LLAMA_CPP_NAMES = {"mistral": "llama", "gemma3_text": "gemma3"}
"""model_type -> llama.cpp's architecture, where the two differ among the steered families."""


def run(study: Study, model: str, out: Path, *, random: bool = False, force: bool = False) -> None:
    """Write the direction of `model`, or its random control, to `out` (.gguf or .safetensors).

    Raises UndertowError where `out` is taken or has another suffix, and, for GGUF, where a
    steered block cannot be steered by llama.cpp.
    """
    write = _writer(out)
    origin = open_origin(study, model)
    refuse_to_replace(out, force)
    with atomic_file(out.expanduser().absolute()) as path:
        write(origin, "random" if random else "trait", path)


def _writer(out: Path) -> Callable[[Origin, str, Path], None]:
    match out.suffix:
        case ".gguf":
            return write_gguf
        case ".safetensors":
            return write_safetensors
        case _:
            raise UndertowError(
                f"--out {out} ends neither in .gguf nor in .safetensors",
                "name the file direction.gguf for llama.cpp, or direction.safetensors",
            )


def write_gguf(origin: Origin, name: str, path: Path) -> None:
    """A control vector in the form of llama-cvector-generator, with the steered blocks alone.

    controlvector.layer_count is the number of vectors in the file, as the generator has it;
    llama.cpp adds nothing to the layers that have none.
    """
    from gguf import GGUFWriter

    layers = sorted(origin.direction.layers)
    if 0 in layers:
        raise UndertowError(
            "block 0 is steered, and llama.cpp cannot apply a control vector to its layer 0",
            "leave 0 out of direction.layers in params.yaml, or export the teacher itself: "
            "python cli.py export teacher --help",
        )
    vectors = origin.direction.of(name).float().contiguous().numpy()
    writer = GGUFWriter(path, "controlvector")
    try:
        writer.add_string(
            "controlvector.model_hint", LLAMA_CPP_NAMES.get(origin.family, origin.family)
        )
        writer.add_int32("controlvector.layer_count", len(layers))
        writer.add_description(json.dumps(_metadata(origin, name), sort_keys=True))
        for layer in layers:
            writer.add_tensor(f"direction.{layer}", vectors[layer])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def write_safetensors(origin: Origin, name: str, path: Path) -> None:
    """vectors [blocks, hidden] float32, of every block; the steered ones are in the metadata.

    One metadata key, because safetensors writes several in a different order each time.
    """
    vectors = origin.direction.of(name).float().contiguous()
    header = {"undertow": json.dumps(_metadata(origin, name), sort_keys=True)}
    save_file({"vectors": vectors}, path, metadata=header)


def _metadata(origin: Origin, name: str) -> dict[str, Any]:
    return {
        "model": origin.model,
        "base": origin.base,
        "trait": origin.trait.name,
        "direction": name,
        "layers": origin.direction.layers,
        "added_to": "output of each of layers (0-based blocks), at every position, times alpha",
        "direction_sha256": origin.direction_sha256,
    }
