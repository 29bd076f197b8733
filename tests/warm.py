"""A process that has imported the heavy libraries, and forks itself for each command of the CLI.

A command is a process of its own with arguments, folder, environment and streams of its own, as if
it had been started; only the seconds of importing are spent once. `shim` writes a `python` for the
PATH that asks it, so that DVC's stages are run by it too; whatever else is asked of that `python`,
the real one does.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

LIBRARIES = (
    *("torch", "transformers", "accelerate", "datasets", "peft", "trl", "safetensors.torch"),
    *("numpy", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.model_selection"),
    *("sklearn.feature_extraction.text", "pandas", "altair", "mlflow", "pydantic", "typer"),
)
NAMES = (  # what transformers and TRL load at the first use of a name
    ("transformers", ("AutoModelForCausalLM", "AutoTokenizer", "DynamicCache", "Trainer")),
    ("transformers", ("LlamaForCausalLM", "Qwen2ForCausalLM")),
    ("trl", ("SFTConfig", "SFTTrainer")),
)
READ_AT_IMPORT = ("AWS", "CUDA", "HF_", "HOME", "MLFLOW", "OMP", "PYTHON", "REQUESTS", "SSL", "XDG")

CLIENT = """\
#!{python} -SE
import json, os, socket, sys

def real():
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])

if sys.argv[1:2] != ["cli.py"]:
    real()
asked = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
text = json.dumps(asked).encode()
server = socket.socket(socket.AF_UNIX)
try:
    server.connect({address!r})
    socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(text)
    answer = server.recv(16)
except OSError:
    real()
if answer in (b"", b"no"):
    real()
sys.exit(int(answer))
"""


@cache
def shim() -> Path:
    """A folder with that `python`, and the process behind it, for as long as these tests run."""
    held = tempfile.TemporaryDirectory(prefix="warm-")
    folder, address = Path(held.name), str(Path(held.name) / "socket")
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    client.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    server = subprocess.Popen(
        [sys.executable, __file__, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    listener.close()

    def end() -> None:
        server.kill()
        server.wait()
        held.cleanup()

    atexit.register(end)
    return folder


def _serve(listener: socket.socket) -> None:
    """Returns in the process of a command, once its script is to be run."""
    for library in LIBRARIES:
        importlib.import_module(library)
    for library, names in NAMES:
        for name in names:
            getattr(importlib.import_module(library), name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asking, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _attend(asking)
        asking.close()


def _attend(asking: socket.socket) -> None:
    """Stay as the one who waits for the command, and return in the command itself."""
    head, streams, _, _ = socket.recv_fds(asking, 4, 3)
    text = b""
    while len(text) < int.from_bytes(head, "big"):
        text += asking.recv(65536)
    asked = json.loads(text)
    if _at_import(asked["env"]) != _at_import(dict(os.environ)):
        asking.sendall(b"no")
        os._exit(0)
    command = os.fork()
    if command:
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        asking.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    asking.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv, sys.path[0] = asked["argv"], asked["cwd"]


def _at_import(environment: dict[str, str]) -> dict[str, str]:
    return {name: v for name, v in environment.items() if name.startswith(READ_AT_IMPORT)}


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
