# SPDX-License-Identifier: Apache-2.0
"""A disk that anybody uses, or that holds anything, is refused."""
import struct
import subprocess

import pytest
from live import bench_words, loop_device, must, needs_root
from paper import disks

pytestmark = needs_root


@pytest.fixture
def loop(tmp_path):
    with loop_device(tmp_path) as device:
        yield device


def test_blank_disk_is_taken(loop):
    disks.check_free(loop, False)


@pytest.mark.parametrize("command, named", [
    (["mkfs.ext4", "-q", "-F", "{}"], "ext4"),
    (["mkswap", "{}"], "swap"),
])
def test_disk_with_a_signature_is_refused(loop, command, named):
    must(*[word.format(loop) for word in command])
    with pytest.raises(disks.Refused, match=named):
        disks.check_free(loop, False)
    disks.check_free(loop, True)


def test_disk_with_a_partition_table_is_refused(loop):
    with open(loop, "r+b") as f: # an MBR with one Linux partition of 100 MiB
        f.seek(446)
        f.write(struct.pack("<8BII", 0, 32, 33, 0, 0x83, 32, 33, 12, 2048, 204800))
        f.seek(510)
        f.write(b"\x55\xaa")
    with pytest.raises(disks.Refused, match="dos"):
        disks.check_free(loop, False)


def test_mounted_disk_is_refused_even_to_be_destroyed(loop, tmp_path):
    where = tmp_path / "mounted"
    where.mkdir()
    must("mkfs.ext4", "-q", "-F", loop)
    must("mount", loop, where)
    try:
        for destroy in (False, True):
            with pytest.raises(disks.Refused, match="mounted"):
                disks.check_free(loop, destroy)
    finally:
        must("umount", where)


def test_disk_that_a_program_has_open_is_refused(loop):
    with subprocess.Popen(["sleep", "60"], stdin=open(loop, "rb")) as holder: # pylint: disable=consider-using-with
        try:
            with pytest.raises(disks.Refused, match="sleep"):
                disks.check_free(loop, True)
        finally:
            holder.kill()


def test_disk_below_another_loop_device_is_refused(loop):
    upper = must("losetup", "--find", "--show", loop)
    try:
        with pytest.raises(disks.Refused, match="in use by"):
            disks.check_free(loop, True)
    finally:
        must("losetup", "--detach", upper)


def test_the_command_refuses_and_touches_nothing(loop, tmp_path, monkeypatch):
    monkeypatch.setenv("MALLEE_BENCH_RECORD", str(tmp_path / "record"))
    must("mkfs.ext4", "-q", "-F", "-L", "keep-me", loop)
    before = must("md5sum", loop)
    done = subprocess.run(bench_words("disk", "--disk", loop, "--rows", "none"), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "holds data" in done.stderr and "--destroy" in done.stderr
    assert must("md5sum", loop) == before


@pytest.mark.parametrize("words, said", [
    (["--disk", "/dev/null"], "no block device"),
    (["--disk", "/nowhere"], "no block device"),
    (["--disk", "/dev/loop0", "--file", "/tmp"], "two disks"),
    (["--file", "/nowhere"], "no folder"),
    (["--scale", "0.5"], "1 or more"),
    (["--rows", "xyz"], "no configuration 'xyz'"),
    (["--workloads", "xyz"], "no workload 'xyz'"),
    (["--destroy"], "--disk /dev/X"),
])
def test_wrong_questions_are_refused(words, said, tmp_path, monkeypatch):
    monkeypatch.setenv("MALLEE_BENCH_RECORD", str(tmp_path / "record"))
    done = subprocess.run(bench_words("disk", *words), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
