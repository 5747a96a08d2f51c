# SPDX-License-Identifier: Apache-2.0
"""A volume of 16 TiB, the most that EC2's gp2 and io1 volumes have, through the whole stack; and a longer one."""
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from conftest import ask, qemu_io, run, tool

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
SIZE = 16 * TIB


@pytest.fixture
def place(tmp_path):
    """A folder whose file system has files that long: ext4 has not, tmpfs and XFS have."""
    for parent in (tmp_path, "/dev/shm"):
        folder = Path(tempfile.mkdtemp(prefix="mallee-large-", dir=parent))
        try:
            with open(folder / "disk", "wb") as f:
                f.truncate(2 * SIZE)
                f.truncate(SIZE)
            yield folder
            return
        except OSError:
            pass
        finally:
            shutil.rmtree(folder)
    pytest.skip("no file system for a file of 16 TiB")


def memory(pid):
    """Bytes: of its own, and files that it has mapped."""
    text = Path(f"/proc/{pid}/status").read_text()
    kib = {name: int(re.search(rf"{name}:\s+(\d+) kB", text).group(1)) for name in ("RssAnon", "RssFile", "RssShmem")}
    return kib["RssAnon"] * KIB, (kib["RssFile"] + kib["RssShmem"]) * KIB


def test_sixteen_tebibytes(blockd, place):
    control = place / "control"

    def serve(name):
        return blockd(f"file:path={place}/disk,direct=off", "--filter", "throttle:iops=1000000", "--filter", f"coalesce:buffer={place}/buffer", "--filter",
                      "readahead", "--filter", f"snap:map={place}/changes", "--filter", f"cow:source=zero,map={place}/map,fill=off", "--queues", "2",
                      "--control", str(control), name=name)

    b = serve("a")
    assert json.loads(ask(control, "info"))["size_bytes"] == SIZE
    qemu_io(b.uri, f"write -P 5 {SIZE - 4 * KIB} 4k", f"read -P 5 {SIZE - 4 * KIB} 4k", f"read -P 0 {SIZE - 8 * KIB} 4k", "write -P 6 0 4k",
            f"write -P 7 {8 * TIB + 512} 1M", f"read -P 7 {8 * TIB + 512} 1M", f"write -z {9 * TIB} 1M", f"discard {10 * TIB} 64M", "flush")
    assert "failed" in qemu_io(b.uri, f"write {SIZE} 4k", ok=False)
    own, mapped = memory(b.pid)
    assert own < 16 * MIB
    # A bit a chunk of 64 KiB, twice for what changed, once for what was copied: a third of each file is mapped.
    assert mapped < 200 * MIB
    files = sum((place / name).stat().st_size for name in ("map", "changes", "changes.2"))
    assert files < 400 * MIB

    ask(control, "snap", "begin", f"name=base,scratch={place}/scratch,scratch-size=16M")
    data = [e for e in json.loads(run(tool("nbdinfo"), "--map", "--json", f"nbd+unix:///snap/base?socket={b.socket}")) if e["type"] == 0]
    assert sum(e["length"] for e in data) <= 3 * MIB
    ask(control, "snap", "end", "name=base,commit=on")
    qemu_io(b.uri, f"write -P 8 {SIZE - MIB} 64k", "flush")
    b.kill()

    b = serve("b")
    ask(control, "resize", str(SIZE + TIB))
    qemu_io(b.uri, f"read -P 5 {SIZE - 4 * KIB} 4k", f"read -P 8 {SIZE - MIB} 64k", f"read -P 7 {8 * TIB + 512} 1M", "read -P 6 0 4k",
            f"write -P 9 {SIZE + TIB - 4 * KIB} 4k", f"read -P 9 {SIZE + TIB - 4 * KIB} 4k", "flush")
    ask(control, "snap", "begin", f"name=next,scratch={place}/scratch,scratch-size=16M")
    changed = [(e["offset"], e["length"]) for e in json.loads(
        run(tool("nbdinfo"), "--map=mallee:changed", "--json", f"nbd+unix:///snap/next?socket={b.socket}")) if e["type"] & 1]
    assert changed[0] == (SIZE - MIB, 64 * KIB) and sum(n for _, n in changed) <= TIB + 2 * MIB
    ask(control, "snap", "end", "name=next")
    assert memory(b.pid)[0] < 16 * MIB
    assert b.stop() == 0
    assert os.stat(place / "disk").st_blocks * 512 < 64 * MIB


def test_a_map_with_too_many_chunks_is_refused(blockd, place):
    """Maps have a limit, which a larger chunk= moves."""
    os.truncate(place / "disk", 2 * SIZE)
    with pytest.raises(AssertionError, match="chunk"):
        blockd(f"file:path={place}/disk,direct=off", "--filter", f"cow:source=zero,map={place}/map,fill=off,chunk=4k", name="a")
    b = blockd(f"file:path={place}/disk,direct=off", "--filter", f"cow:source=zero,map={place}/map2,fill=off,chunk=256k", name="b")
    qemu_io(b.uri, f"write -P 5 {2 * SIZE - 4 * KIB} 4k", f"read -P 5 {2 * SIZE - 4 * KIB} 4k")
