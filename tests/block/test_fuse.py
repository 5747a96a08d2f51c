# SPDX-License-Identifier: Apache-2.0
"""A volume as a file: by hand, under a loop device, and when its process dies."""
import os
import random
import shutil
import subprocess
import time

import pytest

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def place(tmp_path):
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("mounting takes root and /dev/fuse")
    path = tmp_path / "volume"
    yield path
    subprocess.run(["umount", "-l", path], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def serve(blockd, disk, place, tmp_path):
    def start(*more, name="a"):
        b = blockd(f"file:path={disk}", *more, "--control", str(tmp_path / "control.sock"), name=name, front=[f"fuse:mount={place}"])
        b.wait_for(lambda: os.path.getsize(place) == os.path.getsize(disk), "file of the volume's size")
        return b
    return start


def test_any_offset_and_length(serve, place, disk):
    """The file is the volume, byte for byte, whatever whole or parts of blocks are read and written."""
    b = serve()
    model = bytearray(disk.read_bytes())
    rng = random.Random(2)
    with open(place, "r+b", buffering=0) as f:
        for _ in range(300):
            off = rng.choice((rng.randrange(SIZE), rng.randrange(SIZE // 512) * 512))
            length = min(rng.choice((1, 511, 512, 4096, rng.randrange(1, 3 * MIB))), SIZE - off)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                view = memoryview(data)
                while view:
                    n = os.pwrite(f.fileno(), view, off + len(data) - len(view))
                    view = view[n:]
                model[off:off + length] = data
            else:
                assert os.pread(f.fileno(), length, off) == model[off:off + length]
        os.fsync(f.fileno())
        with pytest.raises(OSError):
            f.truncate(SIZE // 2)
        assert os.pread(f.fileno(), 10, SIZE) == b""
        with pytest.raises(OSError):
            os.pwrite(f.fileno(), b"x", SIZE)
    assert b.stop() == 0
    assert not place.exists()
    assert disk.read_bytes() == model


def test_parts_of_a_block_at_once(blockd, place):
    """Many direct writes of different parts of the same blocks are in flight together: none undoes another."""
    assert shutil.which("fio"), "fio is missing"
    b = blockd("mem:size=8M,block-bytes=4096", "--filter", "fault:delay=2,every=2", front=[f"fuse:mount={place}"])
    b.wait_for(lambda: os.path.getsize(place) == 8 * MIB, "file of the volume's size")
    subprocess.run(["fio", "--name=parts", f"--filename={place}", "--size=256k", "--rw=randwrite", "--bs=512", "--direct=1", "--ioengine=libaio",
                    "--iodepth=32", "--allow_file_create=0", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
                    "--verify_state_save=0"], check=True, capture_output=True)
    assert b.stop() == 0


def test_loop_device(serve, place, disk, tmp_path):
    """A file system on a loop device with direct I/O on it: made, filled, checked; holes can be punched."""
    serve()
    loop = subprocess.run(["losetup", "-f", "--show", "--direct-io=on", place], capture_output=True, text=True, check=True).stdout.strip()
    mount = tmp_path / "mount"
    mount.mkdir()
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", loop], check=True)
        subprocess.run(["mount", loop, mount], check=True)
        try:
            data = random.Random(3).randbytes(8 * MIB)
            (mount / "file").write_bytes(data)
            subprocess.run(["sync", "-f", mount], check=True)
            assert (mount / "file").read_bytes() == data
            subprocess.run(["fstrim", mount], check=False, capture_output=True)
        finally:
            subprocess.run(["umount", mount], check=True)
        subprocess.run(["e2fsck", "-fn", loop], check=True, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)


def test_grows(serve, place, disk, tmp_path):
    b = serve()
    done = subprocess.run([b.process.args[0], "--to", tmp_path / "control.sock", "resize", str(2 * SIZE)], capture_output=True, text=True, check=True)
    assert str(2 * SIZE) in done.stdout
    end = time.monotonic() + 10
    while os.path.getsize(place) != 2 * SIZE and time.monotonic() < end:
        time.sleep(0.05)
    assert os.path.getsize(place) == 2 * SIZE
    with open(place, "rb") as f:
        f.seek(SIZE)
        assert f.read(4096) == bytes(4096)


def test_successor_takes_a_dead_ones_place(serve, place, disk):
    first = serve()
    first.kill()
    with pytest.raises(OSError):
        place.read_bytes()
    serve(name="b")
    with open(place, "rb") as f:
        assert f.read(MIB) == disk.read_bytes()[:MIB]


def test_unmounted_by_hand(serve, place):
    b = serve()
    subprocess.run(["umount", place], check=True)
    b.wait_for(lambda: "unmounted" in b.text(), "word of it in its log")
    assert b.stop() == 0


def test_a_file_with_something_in_it_is_refused(place, disk, tmp_path):
    from conftest import program

    place.write_text("mine")
    done = subprocess.run([program(), "--back", f"file:path={disk}", "--front", f"fuse:mount={place}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "not an empty file" in done.stderr
    assert place.read_text() == "mine"
