# SPDX-License-Identifier: Apache-2.0
"""The streaming program and the asynchronous one, on files."""
import json
import subprocess
import zlib

import pytest
from live import BUILD, MIB

STREAM, AIO = BUILD / "bench" / "stream", BUILD / "bench" / "aio-load"
BLOCK, CHUNK, PACKET = 64 * MIB, 512, 65536


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "disk"
    with open(path, "wb") as f:
        f.truncate(160 * MIB)
    return path


def test_stream_writes_checksums_that_zlib_agrees_with(target):
    size = BLOCK + 3 * PACKET # over the end of a block
    assert json.loads(run(STREAM, "write", target, size).stdout)["bytes"] == size
    with open(target, "rb") as f:
        for at in (0, 5 * CHUNK, BLOCK - CHUNK):
            f.seek(at)
            data = f.read(CHUNK)
            f.seek(BLOCK + at // CHUNK * 4)
            assert int.from_bytes(f.read(4), "little") == zlib.crc32(data)
    assert run(STREAM, "read", target, size).returncode == 0


@pytest.mark.parametrize("place", [3 * PACKET + 17, BLOCK + 40])
def test_stream_finds_one_wrong_byte(target, place):
    """In the data, and in the checksums."""
    assert run(STREAM, "write", target, 8 * PACKET).returncode == 0
    with open(target, "r+b") as f:
        f.seek(place)
        byte = f.read(1)
        f.seek(place)
        f.write(bytes([byte[0] ^ 1]))
    done = run(STREAM, "read", target, 8 * PACKET)
    assert done.returncode == 1
    assert "not what was written" in done.stderr


def test_stream_finds_swapped_chunks(target):
    """With their checksums: each by itself is right."""
    assert run(STREAM, "write", target, 8 * PACKET).returncode == 0
    with open(target, "r+b") as f:
        for base, unit in ((0, CHUNK), (BLOCK, 4)):
            f.seek(base)
            a, b = f.read(unit), f.read(unit)
            f.seek(base)
            f.write(b + a)
    assert "not what was written" in run(STREAM, "read", target, 8 * PACKET).stderr


def test_stream_tells_that_the_disk_is_too_small(tmp_path):
    (tmp_path / "small").write_bytes(bytes(PACKET))
    assert run(STREAM, "read", tmp_path / "small", 8 * PACKET).returncode == 1


@pytest.mark.parametrize("words", [[], ["read"], ["read", "x"], ["read", "x", "12"], ["copy", "x", "65536"], ["read", "x", "65536k"]])
def test_stream_shows_its_usage(words):
    assert run(STREAM, *words).returncode == 2


def test_aio_moves_what_it_says(target):
    done = run(AIO, target, "--seconds", "0.3", "--write", "--depth", "4", "--bs", 65536)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ops"] > 0 and said["bytes"] == said["ops"] * 65536 and said["seconds"] >= 0.3


@pytest.mark.parametrize("words", [[], ["x"], ["x", "--seconds", "0"], ["x", "--seconds", "1", "--depth", "0"], ["x", "--seconds", "1", "--bs", "100"],
                                   ["x", "--seconds", "1", "--depth", "2000"]])
def test_aio_shows_its_usage(words):
    assert run(AIO, *words).returncode == 2


def test_aio_tells_of_a_missing_disk(tmp_path):
    done = run(AIO, tmp_path / "nowhere", "--seconds", "1")
    assert done.returncode == 1 and "nowhere" in done.stderr
