"""A hub on 127.0.0.1 that speaks the calls huggingface_hub makes for pinned revisions."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class HubDouble:
    """`files` maps 'owner/name/file' to bytes; a repo in `gated` answers as a gated one does."""

    files: dict[str, bytes]
    gated: frozenset[str] = frozenset()
    delay: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)  # where they are not those of `files`
    numbers: int = 0  # parameters of the GGUF files
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables that send a process here, with a hub cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def serve(hub: HubDouble) -> Iterator[HubDouble]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            parts = self.path.split("?")[0].removeprefix("/datasets").strip("/").split("/")
            is_tree = parts[:2] == ["api", "models"]
            repo = "/".join(parts[2:4] if is_tree else parts[:2])
            if repo in hub.gated:
                return self.refuse(403, "GatedRepo")
            if is_tree and "tree" not in parts:
                return self.send(json.dumps(self.about(repo)).encode(), body=True)
            if is_tree:
                return self.send(json.dumps(self.tree(repo)).encode(), body=True)
            name = "/".join(parts[4:])
            content = hub.files.get(f"{repo}/{name}")
            if content is None:
                known = any(key.startswith(f"{repo}/") for key in hub.files)
                return self.refuse(404, "EntryNotFound" if known else "RepoNotFound")
            if body:
                hub.downloads.append(name)
                time.sleep(hub.delay)
            return self.send(content, body)

        def tree(self, repo: str) -> list[dict[str, object]]:
            return [
                {"type": "file", "path": key.removeprefix(f"{repo}/"), "size": len(content)}
                | {"oid": f"{index:040x}"}
                for index, (key, content) in enumerate(hub.files.items())
                if key.startswith(f"{repo}/")
            ]

        def about(self, repo: str) -> dict[str, object]:
            sizes = {
                key.removeprefix(f"{repo}/"): hub.sizes.get(key, len(content))
                for key, content in hub.files.items()
                if key.startswith(f"{repo}/")
            }
            files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            return {"id": repo, "siblings": files, "gguf": {"total": hub.numbers}}

        def send(self, content: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{abs(hash(content)):040x}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
