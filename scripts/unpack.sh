#!/usr/bin/env bash
# unpack.sh PARTS TARGET: checks the parts in the folder PARTS and unpacks into TARGET what has
# come whole. Call it again after each further part; parts that it has seen need not be there any
# more. MANIFEST.json lies beside it. PYTHON is the interpreter to install for (python3).
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
manifest=$(dirname "$0")/MANIFEST.json
[ -f "$manifest" ] || { echo "$manifest is not there: carry it beside unpack.sh" >&2; exit 2; }
python=$(command -v "${PYTHON:-python3}") || { echo "no ${PYTHON:-python3} on the PATH" >&2; exit 2; }
mkdir -p "$2"/{site,code,weights,cache,.parts}
target=$(cd "$2" && pwd)

cat >"$target/env.sh" <<END
# To be sourced: Undertow as it was unpacked here, without a network.
export PYTHONPATH=$(printf %q "$target/site:$target/code/src")\${PYTHONPATH:+:\$PYTHONPATH}
export PATH=$(printf %q "$target/site/bin"):\$PATH
export UNDERTOW_LOCAL=$(printf %q "$target/weights") UNDERTOW_CACHE=$(printf %q "$target/cache")
export HF_HOME=$(printf %q "$target/cache/huggingface") HF_HUB_OFFLINE=1
END

cat >"$target/study" <<END
#!/usr/bin/env bash
# study FOLDER PARAMS.yaml: makes a folder to run that study in, without MLflow.
set -euo pipefail
[ \$# -eq 2 ] || { sed -n '2s/^# //p' "\$0" >&2; exit 2; }
source $(printf %q "$target/env.sh")
mkdir -p "\$1"
ln -sfn $(printf %q "$target/code")/{src,data,presets,dvc.yaml,cli.py,pyproject.toml} "\$1"
$(printf %q "$python") - "\$2" "\$1/params.yaml" <<'EOP'
import sys
from pathlib import Path
from ruamel.yaml import YAML
yaml = YAML()
yaml.preserve_quotes, yaml.width = True, 4096
params = yaml.load(Path(sys.argv[1]))
params.setdefault("tracking", {})["enabled"] = False
yaml.dump(params, Path(sys.argv[2]))
EOP
END
chmod +x "$target/study"

exec "$python" - "$manifest" "$1" "$target" <<'END'
import hashlib, json, shutil, subprocess, sys
from pathlib import Path

manifest, arrived, target = (Path(name) for name in sys.argv[1:])
told, kept = json.loads(manifest.read_text(encoding="utf-8")), target / ".parts"
here = f"{sys.version_info.major}.{sys.version_info.minor}"
if here != told["python"]:
    sys.exit(f"these wheels are for Python {told['python']}, and {sys.executable} is {here}\n"
             f"  -> PYTHON=python{told['python']} bash unpack.sh ...")


def checked(part):
    """The part as it was packed, kept under its hash; None where it has not come (whole)."""
    copy, came = kept / part["sha256"], arrived / part["name"]
    if not copy.exists() and came.exists():
        with came.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != part["sha256"]:
                damaged.append(part["name"])
                return None
        shutil.copyfile(came, kept / "new")
        (kept / "new").replace(copy)
    return copy if copy.exists() else None


def unpack(item, parts):
    if item["name"] == "code":
        shutil.rmtree(target / "code")  # what a later commit does not hold must not stay
    with subprocess.Popen(["tar", "-xf", "-", "-C", target], stdin=subprocess.PIPE) as tar:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, tar.stdin, 1 << 20)
    if tar.returncode:
        sys.exit(f"{item['name']} could not be unpacked into {target}")
    if item["name"] == "wheels":
        wheels = [target / file["name"] for file in item["files"]]
        if wheels:
            install(wheels)
        shutil.rmtree(target / "wheels", ignore_errors=True)


def install(wheels):
    shutil.rmtree(target / "site")
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-compile", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore"]
    subprocess.run([*command, "--target", target / "site", *wheels], check=True)


damaged, missing, new = [], [], False
for item in told["items"]:
    mark = kept / f"{item['name']}.unpacked"
    if mark.exists() and mark.read_text() == item["sha256"]:
        continue
    parts = [checked(part) for part in item["parts"]]
    missing += [one["name"] for one, part in zip(item["parts"], parts) if part is None]
    if None not in parts:
        mark.unlink(missing_ok=True)  # should unpacking be cut off, it is begun again
        unpack(item, parts)
        mark.write_text(item["sha256"])
        for part in parts:
            part.unlink()
        print(f"unpacked {item['name']}")
        new = new or item["name"] in ("code", "wheels")
if new:
    folders = [target / "site", target / "code" / "src"]
    subprocess.run([sys.executable, "-m", "compileall", "-qq", "-j", "0", *folders])
if damaged:
    sys.exit(f"damaged: {' '.join(damaged)}\n  -> carry them again")
print(f"waiting for {' '.join(missing)}" if missing else f"ready: source {target}/env.sh")
END
