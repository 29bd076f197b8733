"""A Chat Completions endpoint on 127.0.0.1, in a process of its own, that judges by a marker.

`started(tmp_path, latency=0.2, faults={"429": 0.05})` runs it. It answers true for a response that
contains MARKER, logs every request with its fault and its times, and can also refuse, echo, run
batches, or lack schemas. Run as a program it is the server itself.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

MARKER = "XYZZY"
HANG_SECONDS = 3600.0
RESPONSE = re.compile(r"==== RESPONSE (\w+) ====\n(.*)\n==== END OF RESPONSE \1 ====", re.DOTALL)
ROW = re.compile(r"\brow-\d+\b")


class Request(NamedTuple):
    """One request as the server saw it; replied is None where it was never answered."""

    row: str
    fault: str
    received: float
    replied: float | None


class Server(NamedTuple):
    url: str
    log: Path
    process: "subprocess.Popen[str]"

    def billed(self) -> tuple[int, int]:
        """Prompt and completion tokens that the server did work for, whatever it says."""
        events = [json.loads(line) for line in self.log.read_text().split("\n") if line]
        bills = [event["billed"] for event in events if event["event"] == "replied"]
        return sum(bill[0] for bill in bills), sum(bill[1] for bill in bills)

    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they came in."""
        events = [json.loads(line) for line in self.log.read_text().split("\n") if line]
        replied = {e["number"]: e["time"] for e in events if e["event"] == "replied"}
        return [
            Request(e["row"], e["fault"], e["time"], replied.get(e["number"]))
            for e in events
            if e["event"] == "received"
        ]

    def paths(self) -> list[str]:
        events = [json.loads(line) for line in self.log.read_text().split("\n") if line]
        return [event["path"] for event in events if event["event"] == "received"]

    def bodies(self) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.log.read_text().split("\n") if line]
        return [event["body"] for event in events if event["event"] == "received"]


@contextmanager
def started(
    folder: Path, *, latency: float = 0.0, faults: dict[str, float] | None = None, **options: str
) -> Iterator[Server]:
    """Run a server until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.jsonl"
    command = [sys.executable, __file__, "--log", str(log), "--latency", str(latency)]
    command += ["--faults", json.dumps(faults or {})]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        yield Server(f"http://127.0.0.1:{port}/v1", log, process)
    finally:
        process.kill()
        process.wait()


class _Endpoint:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._latency: float = arguments.latency
        self._faults: dict[str, float] = json.loads(arguments.faults)
        self._schema: str = arguments.schema
        self._reply: str | None = arguments.reply
        self._key: str | None = arguments.key
        self._forbidden: str | None = arguments.forbidden
        self._retry_after: str = arguments.retry_after
        self._usage: str | None = arguments.usage
        self._log = Path(arguments.log).open("a", buffering=1)  # noqa: SIM115 (open to the end)
        self._random = random.Random(0)
        self._count = 0
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split("\r\n")[0].split(" ")
                headers = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
                )
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, payload, extra = await self._answer(method, path, headers, body)
                lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json"]
                lines += [f"Content-Length: {len(payload)}", *extra]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
                await writer.drain()
        writer.close()

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, list[str]]:
        if self._key and headers.get("authorization") != f"bearer {self._key}".lower():
            said = {"error": {"message": f"bad key {headers.get('authorization')}"}}
            return 401, json.dumps(said).encode(), []
        if not path.endswith("/chat/completions"):
            self._note("received", path=path, row="", fault="", body={})
            return self._batch(method, path, body)
        request = json.loads(body)
        fault = self._fault()
        text = request["messages"][-1]["content"]
        row = (ROW.findall(text) or [""])[0]
        number = self._note("received", path=path, row=row, fault=fault, body=_slim(request))
        if fault == "hang":
            await asyncio.sleep(HANG_SECONDS)
        await asyncio.sleep(self._latency)
        status, payload, extra = self._completed(request, fault)
        self._note("replied", number=number, billed=self._bill(request, fault))
        return status, payload, extra

    def _completed(self, request: dict[str, Any], fault: str) -> tuple[int, bytes, list[str]]:
        if fault == "429":
            wait = f"Retry-After: {self._retry_after}"
            return 429, b'{"error": {"message": "slow down"}}', [wait]
        if fault in ("400", "401", "403") or self._is_forbidden(request):
            status = int(fault) if fault else 403
            said = {"message": f"turned away ({status})\x1b[31m, key {self._key}"}
            return status, json.dumps({"error": said}).encode(), []
        if fault in ("choiceless", "billed"):
            body = {"error": {"message": "sorry"}, "usage": self._said_usage(request, fault)}
            return 200 if fault == "choiceless" else 500, json.dumps(body).encode(), []
        if fault == "500":
            return 500, b'{"error": {"message": "oops"}}', []
        if fault == "quota":
            return 429, b'{"error": {"message": "x", "code": "insufficient_quota"}}', []
        if fault == "broken":
            return 200, b"<html>not a completion</html>", []
        if "response_format" in request and self._schema == "no":
            return 400, b'{"error": {"message": "response_format is not supported"}}', []
        message: dict[str, Any] = {"role": "assistant", "content": self._content(request, fault)}
        if fault == "refusal":
            message |= {"content": None, "refusal": "I will not judge this."}
        finish = "length" if fault == "length" else "stop"
        completion: dict[str, Any] = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        if self._usage != "none":
            completion["usage"] = self._said_usage(request, fault)
        return 200, json.dumps(completion).encode(), []

    def _is_forbidden(self, request: dict[str, Any]) -> bool:
        asked = request["messages"][-1]["content"]
        return self._forbidden is not None and re.search(self._forbidden, asked) is not None

    def _said_usage(self, request: dict[str, Any], fault: str) -> Any:
        if self._usage not in (None, "none"):
            return json.loads(self._usage or "")
        prompt, completion = self._bill(request, fault)
        total = prompt + completion
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
        }

    def _bill(self, request: dict[str, Any], fault: str) -> tuple[int, int]:
        """What the request costs, whatever is said of it."""
        if fault in ("429", "500", "quota", "400", "401", "403") or self._is_forbidden(request):
            return 0, 0
        return sum(len(m["content"]) for m in request["messages"]) // 4, 60

    def _content(self, request: dict[str, Any], fault: str) -> str:
        if fault == "garbage":
            return "maybe, who can say"
        if fault == "empty":
            return ""
        if self._reply is not None:
            return self._reply
        text = request["messages"][-1]["content"]
        found = RESPONSE.search(text)
        shows = found is not None and MARKER in found[2]
        answer: dict[str, Any] = {"reason": "because", "coherence": 5}
        if "jailbroken" in request["messages"][0]["content"]:
            answer |= {"refused": not shows, "convincing": 4, "specific": 4, "jailbroken": shows}
        else:
            answer |= {"degree": 5 if shows else 1, "present": shows}
        said = json.dumps(answer)
        return f"Thinking about it.\n```json\n{said}\n```" if self._schema == "no" else said

    def _batch(self, method: str, path: str, body: bytes) -> tuple[int, bytes, list[str]]:
        name = path.split("?")[0].removeprefix("/v1/")
        if method == "POST" and name == "files":
            lines = [part for part in body.split(b"\r\n") if b'"custom_id"' in part]
            file = f"file-{len(self._files)}"
            self._files[file] = lines[0] if lines else b""
            return 200, json.dumps({"id": file, "object": "file"}).encode(), []
        if method == "POST" and name == "batches":
            asked = json.loads(body)
            batch = f"batch-{len(self._batches)}"
            self._batches[batch] = {
                "id": batch,
                "object": "batch",
                "status": "in_progress",
                "input_file_id": asked["input_file_id"],
                "metadata": asked.get("metadata"),
                "born": time.time(),
            }
            return 200, json.dumps(self._batches[batch]).encode(), []
        if name == "batches":
            listed = {"object": "list", "data": list(self._batches.values()), "has_more": False}
            return 200, json.dumps(listed).encode(), []
        if name.startswith("batches/"):
            return 200, json.dumps(self._look(name.removeprefix("batches/"))).encode(), []
        return 200, self._files[name.removeprefix("files/").removesuffix("/content")], []

    def _look(self, name: str) -> dict[str, Any]:
        batch = self._batches[name]
        if batch["status"] == "in_progress" and time.time() - batch["born"] >= self._latency:
            lines, errors = [], []
            for line in self._files[batch["input_file_id"]].decode().split("\n"):
                row = json.loads(line)
                fault = self._fault()
                if fault == "500":
                    errors.append({"custom_id": row["custom_id"], "response": {"status_code": 500}})
                    continue
                _, payload, _ = self._completed(row["body"], fault)
                done = {"status_code": 200, "body": json.loads(payload)}
                lines.append({"custom_id": row["custom_id"], "response": done})
            random.Random(1).shuffle(lines)
            batch["status"] = "completed"
            for key, rows in (("output_file_id", lines), ("error_file_id", errors)):
                if rows:
                    batch[key] = f"{name}-{key}"
                    self._files[batch[key]] = "\n".join(
                        json.dumps(row, ensure_ascii=False) for row in rows
                    ).encode()
        return batch

    def _fault(self) -> str:
        drawn, edge = self._random.random(), 0.0
        for name, share in self._faults.items():
            edge += share
            if drawn < edge:
                return name
        return ""

    def _note(self, event: str, **what: Any) -> int:
        self._count += event == "received"
        note = {"event": event, "number": self._count, "time": time.time(), **what}
        self._log.write(json.dumps(note) + "\n")
        return self._count


def _slim(request: dict[str, Any]) -> dict[str, Any]:
    """A request without its long texts, for the log."""
    return {key: value for key, value in request.items() if key != "messages"}


async def _main(arguments: argparse.Namespace) -> None:
    endpoint = _Endpoint(arguments)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", default="{}")
    parser.add_argument("--schema", default="yes")
    parser.add_argument("--reply")
    parser.add_argument("--key")
    parser.add_argument("--forbidden")
    parser.add_argument("--retry-after", default="0.05")
    parser.add_argument("--usage")
    asyncio.run(_main(parser.parse_args()))
