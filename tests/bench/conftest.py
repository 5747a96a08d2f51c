# SPDX-License-Identifier: Apache-2.0
"""What the tests of the bench share: its folder as a place of modules, and recorded results."""
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent.parent
DATA = Path(__file__).resolve().parent / "data"
sys.path.insert(0, str(SOURCE / "bench"))

_recorded = {}


def recorded(name):
    if name not in _recorded:
        _recorded[name] = json.loads((DATA / f"{name}.json").read_text())
    return copy.deepcopy(_recorded[name])


@pytest.fixture
def disk():
    return recorded("disk")


@pytest.fixture
def net():
    return recorded("net")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs `mallee bench …` with a place of its own for kept results."""
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))

    def run(*argv):
        return subprocess.run([sys.executable, str(SOURCE / "bench" / "mallee_bench.py"), *map(str, argv)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)
    return run


@pytest.fixture
def saved(tmp_path):
    """Puts a result into a file."""
    def save(result, name="result.json"):
        path = tmp_path / name
        path.write_text(json.dumps(result))
        return path
    return save
