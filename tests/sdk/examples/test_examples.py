"""The programs in examples/, as a reader of them would run them."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
CACHE = ROOT / "tests" / "sdk" / ".cache"


def newest(pattern):
    """The folder of the newest SDK, whose name ends in a version."""
    return max(CACHE.glob(pattern), key=lambda folder: [int(part) for part in folder.name.rsplit("-", 1)[1].split(".")])


def run(*command, cwd=None):
    environment = os.environ | {
        "OPENAI_BASE_URL": os.environ["SDK_BASE_URL"],
        "OPENAI_API_KEY": os.environ["SDK_API_KEY"],
    }
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_python():
    answer = run(str(newest("openai-*") / "bin" / "python"), str(EXAMPLES / "python" / "chat.py"))
    assert answer.strip()


def test_node(tmp_path):
    # Node looks for packages in the folders above a module.
    shutil.copy(EXAMPLES / "node" / "chat.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(newest("node-openai-*") / "node_modules")
    assert run("node", "chat.mjs", cwd=tmp_path).strip()


def test_curl():
    events = run(str(EXAMPLES / "curl" / "chat.sh"))
    assert "event: thread.message.delta" in events
    assert events.rstrip().endswith("data: [DONE]")


