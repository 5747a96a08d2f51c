# SPDX-License-Identifier: Apache-2.0
"""What tests need that measure for real: root, loop devices, what is built."""
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent.parent
BUILD = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()
MIB = 1 << 20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")


def bench_words(*arguments):
    return [sys.executable, str(SOURCE / "bench" / "mallee_bench.py"), *map(str, arguments)]


def must(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def loop_device(folder, size=600 * MIB):
    """Of a sparse file."""
    path = Path(folder) / "loop.raw"
    with open(path, "wb") as f:
        f.truncate(size)
    device = must("losetup", "--find", "--show", path)
    try:
        yield device
    finally:
        must("losetup", "--detach", device)


def ours(folder):
    """Loop devices over files in a folder."""
    return [path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file") if path.read_text().startswith(f"{folder}/")]
