# SPDX-License-Identifier: Apache-2.0
"""A volume whose file grew while nobody served it: its maps and its buffer are of a shorter one, and go on."""
import json
import os
import random

import pytest

from conftest import ask, qemu_io, run, tool

MIB = 1 << 20
KIB = 1 << 10
BEFORE = 24 * MIB + 12 * KIB  # no whole chunks
SOURCE = 16 * MIB + 4 * KIB
AFTER = 140 * MIB + 8 * KIB   # more pages of a map with chunks of 4 KiB


def changed(uri):
    """What a view says that has changed since the base, as a set of 4 KiB blocks."""
    blocks = set()
    for e in json.loads(run(tool("nbdinfo"), "--map=mallee:changed", "--json", uri)):
        if e["type"] & 1:
            blocks.update(range(e["offset"] // 4096, (e["offset"] + e["length"]) // 4096))
    return blocks


class Volume:
    def __init__(self, blockd, folder, chunk, fill):
        self.blockd, self.folder, self.chunk, self.fill = blockd, folder, chunk, fill
        self.disk = folder / "disk"
        self.control = folder / "control"
        self.model = bytearray(BEFORE)
        self.model[:SOURCE] = random.Random(7).randbytes(SOURCE)
        (folder / "source").write_bytes(self.model[:SOURCE])
        with open(self.disk, "wb") as f:
            f.truncate(BEFORE)

    def serve(self, name="a"):
        self.b = self.blockd(f"file:path={self.disk}", "--filter", f"coalesce:buffer={self.folder}/buffer,size=8M,volume=v", "--filter", "readahead",
                             "--filter", f"snap:map={self.folder}/changes,chunk={self.chunk}", "--filter",
                             f"cow:source=file:path={self.folder}/source,,read-only=on,map={self.folder}/map,chunk={self.chunk},fill={self.fill}",
                             "--control", str(self.control), name=name)
        return self.b

    def write(self, at, length, pattern, *more):
        qemu_io(self.b.uri, f"write -P {pattern} {at} {length}", *more)
        self.model[at:at + length] = bytes([pattern]) * length

    def grow(self, size):
        os.truncate(self.disk, size)
        self.model += bytes(size - len(self.model))

    def changed(self):
        ask(self.control, "snap", "begin", f"name=view,scratch={self.folder}/scratch,scratch-size=8M")
        blocks = changed(f"nbd+unix:///snap/view?socket={self.b.socket}")
        ask(self.control, "snap", "end", "name=view")
        return blocks

    def check(self):
        assert json.loads(ask(self.control, "info"))["size_bytes"] == len(self.model)
        copy = self.folder / "copy"
        copy.unlink(missing_ok=True)
        run(tool("nbdcopy"), self.b.uri, copy)
        with open(copy, "rb") as f:
            for at in range(0, len(self.model), 4 * MIB):
                assert f.read(4 * MIB) == self.model[at:at + 4 * MIB], f"at {at} MiB"
        copy.unlink()


@pytest.mark.parametrize("chunk, fill", [("64k", "off"), ("4k", "off"), ("64k", "on")])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_grown_between(blockd, tmp_path, chunk, fill, end):
    v = Volume(blockd, tmp_path, chunk, fill)
    v.serve()
    v.write(1 * MIB, 128 * KIB, 1)
    v.write(BEFORE - 4 * KIB, 4 * KIB, 2)           # its last, short chunk
    ask(v.control, "snap", "begin", f"name=base,scratch={tmp_path}/scratch,scratch-size=8M")
    ask(v.control, "snap", "end", "name=base,commit=on")
    v.write(2 * MIB, 4 * KIB, 3, "flush")
    v.write(SOURCE - 8 * KIB, 8 * KIB, 4)           # in the buffer when it is killed
    if end == "stopped":
        assert v.b.stop() == 0
    else:
        v.b.kill()
    v.grow(AFTER)
    v.serve("b")
    v.check()
    before = v.changed()
    assert {2 * MIB // 4096, (SOURCE - 4 * KIB) // 4096} <= before
    assert set(range(BEFORE // 65536 * 16 + 16, AFTER // 4096)) <= before, "what is new has changed"
    assert 3 * MIB // 4096 not in before
    v.write(AFTER - 8 * KIB, 8 * KIB, 5)
    v.write(BEFORE - 4 * KIB, 100 * KIB, 6)
    v.write(4 * MIB + 512, 512, 7, "flush")
    v.check()
    assert v.b.stop() == 0
    # Again, and to the end of filling: a plain file then.
    v.grow(AFTER + 4 * MIB)
    v.fill = "on"
    v.serve("c")
    v.b.wait_for(lambda: json.loads(ask(v.control, "cow", "status"))["state"] == "complete", "complete copy")
    v.check()
    assert v.b.stop() == 0
    v.grow(AFTER + 8 * MIB)
    os.unlink(tmp_path / "source")  # not needed any more, however it grows
    v.serve("d")
    v.check()
    assert v.b.stop() == 0
    assert v.disk.read_bytes() == v.model


def test_shorter_is_refused(blockd, tmp_path):
    v = Volume(blockd, tmp_path, "64k", "off")
    v.serve()
    v.write(1 * MIB, 64 * KIB, 1)
    v.b.kill()
    os.truncate(v.disk, BEFORE - 4 * MIB)
    with pytest.raises(AssertionError, match="of a longer volume|of another volume"):
        v.serve("b")
    os.truncate(v.disk, BEFORE)
    v.serve("c")
    v.check()


def test_shorter_source_is_refused(blockd, tmp_path):
    """What is still to come from the source would not be there."""
    v = Volume(blockd, tmp_path, "64k", "off")
    v.serve()
    v.write(1 * MIB, 64 * KIB, 1)
    assert v.b.stop() == 0
    os.truncate(tmp_path / "source", SOURCE - 4 * MIB)
    with pytest.raises(AssertionError, match=f"{SOURCE - 4 * MIB} bytes; it had {SOURCE} "):
        v.serve("b")
    (tmp_path / "source").write_bytes(random.Random(7).randbytes(SOURCE))
    v.serve("c")
    v.check()
