# SPDX-License-Identifier: Apache-2.0
"""The rules on live cases, each provoked on the modelled disk (a loop device, counted by the kernel): what slows it down is named.

No guest takes part, so that it takes seconds: a stack of mallee-blockd is the way to the disk, and delays, limits or nothing are in it.
"""
import contextlib
import fcntl
import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import time

import pytest
import guest
import servers
from live import BUILD, MIB, needs_root
from paper import counters, hostnet, netvolume, undo

BLOCKD = BUILD / "src" / "cmd" / "mallee-blockd"
BLOCK = 64 * 1024
RATE = 112_000_000
BEST_SECTORS = 1014
SECONDS = 2.5

pytestmark = needs_root


@pytest.fixture
def model(tmp_path):
    with guest.Disk(BLOCKD, tmp_path, RATE, "512M") as disk:
        yield disk


@contextlib.contextmanager
def way(folder, device, *filters):
    """A file that is the device, behind these filters."""
    place = folder / "way"
    place.touch()
    command = [BLOCKD, "--name", "way", "--back", f"file:path={device},direct=on"]
    for one in filters:
        command += ["--filter", one]
    with servers.Server("the way", [*command, "--front", f"fuse:mount={place}"], None, folder / "way.log") as server:
        deadline = time.monotonic() + 15
        while not place.stat().st_size:
            assert server.process.poll() is None and time.monotonic() < deadline, (folder / "way.log").read_text()
            time.sleep(0.05)
        yield place


def read_directly(path):
    """64 kB at a time, one after the other, past the page cache. Returns bytes."""
    done = 0
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                done += os.preadv(fd, [buffer], done)
    finally:
        os.close(fd)
    return done


def measured(device, work, *arguments):
    """A row's own figures, of the work and of the disk meanwhile. work returns how many bytes it moved."""
    before, start = counters.Disk.read(device), time.monotonic()
    moved = work(*arguments)
    seconds, disk = time.monotonic() - start, counters.Disk.read(device).since(before)
    path = {"flushes_s": disk.flushes / seconds, "disk_mb_s": RATE / 1e6, "disk_best_sectors": BEST_SECTORS}
    return {"mb_s": moved / 1e6 / seconds, **counters.columns(disk, seconds), "path": path}, disk, seconds


def findings(row):
    result = {"version": 1, "kind": "disk", "rows": [row]}
    done = subprocess.run([BUILD / "mallee", "bench", "explain"], input=json.dumps(result), capture_output=True, text=True, check=True)
    return {one["rule"]: one["gain"] for one in json.loads(done.stdout)["rows"][0]["held_back_by"]}


def row_of(figures, workload, **path):
    return {"configuration": "mallee", "workload": workload, **figures, "path": {**figures["path"], **path}}


def test_a_reader_at_depth_one_behind_a_slow_way(model, tmp_path):
    with way(tmp_path, model.device, "fault:op=read,delay=2") as place:
        figures, _, _ = measured(model.device, read_directly, place)
    row = row_of(figures, "direct-read", depth=1, direct=True, write=False, sparse=False, host_cache=False, emulated=False)
    found = findings(row)
    assert "queue-starved" in found, (row, found)
    # Filled, the disk would do as much in its idle time, too.
    assert found["queue-starved"] == pytest.approx(min(100 / row["util_percent"], RATE / 1e6 / row["mb_s"]), rel=0.01)
    # With eight in flight it would not have been this.
    assert "queue-starved" not in findings({**row, "path": {**row["path"], "depth": 8}})


def test_a_throttled_volume(model, tmp_path):
    with way(tmp_path, model.device, "throttle:bps=4000000") as place:
        figures, _, _ = measured(model.device, read_directly, place)
    row = row_of(figures, "direct-read", depth=1, direct=True, limit_mb_s=4)
    found = findings(row)
    assert list(found) == ["volume-limit"], (row, found)
    assert found["volume-limit"] > 3


def test_a_throttle_of_requests(model, tmp_path):
    with way(tmp_path, model.device, "throttle:iops=50") as place:
        figures, _, _ = measured(model.device, read_directly, place)
    found = findings(row_of(figures, "direct-read", depth=1, direct=True, request_bytes=BLOCK, limit_iops=50))
    assert next(iter(found)) == "volume-limit", (figures, found)
    assert "queue-starved" not in found


# ---- a sparse file ----

@pytest.fixture
def mounted(model, tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", model.device], check=True)
    subprocess.run(["mount", model.device, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def write_synchronously(path, count):
    """Each write is on the disk before the next begins, as a write-through file has it."""
    block = os.urandom(BLOCK)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
    done = 0
    try:
        deadline = time.monotonic() + SECONDS
        while done < count and time.monotonic() < deadline:
            os.pwrite(fd, block, done * BLOCK)
            done += 1
    finally:
        os.close(fd)
    return done * BLOCK


def write_at_once(path, count):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for i in range(count):
            os.pwrite(fd, os.urandom(BLOCK), i * BLOCK)
        os.fsync(fd)
    finally:
        os.close(fd)
    return count * BLOCK


def sparse_row(model, work, path, count):
    figures, disk, seconds = measured(model.device, work, path, count)
    beside = disk.write_sectors * 512 - figures["mb_s"] * 1e6 * seconds # in blocks of 4 KiB, as the bench counts it
    return row_of(figures, "dd-write", sparse=True, metadata_writes_s=max(0, beside) / 4096 / seconds)


def test_a_sparse_file(model, mounted):
    path = mounted / "sparse"
    with open(path, "wb") as f:
        f.truncate(256 * MIB)
    row = sparse_row(model, write_synchronously, path, 4096)
    assert findings(row).get("sparse", 0) > 1.2, row
    assert row["mb_s"] < 0.3 * RATE / 1e6


def test_a_sparse_file_that_is_written_at_once(model, mounted):
    """Holes that cost next to nothing are not accused."""
    row = sparse_row(model, write_at_once, mounted / "sparse", 2048)
    assert "sparse" not in findings(row), row


# ---- frames of 1500 bytes ----

ETH_P_AOE = 0x88A2


class Initiator:
    """Reads by AoE (AoEr11), one frame at a time."""

    def __init__(self, interface, shelf):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_AOE))
        self.socket.bind((interface, ETH_P_AOE))
        self.socket.settimeout(1)
        self.shelf = shelf
        self.tag = 0
        with socket.socket() as s:
            self.mac = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24] # SIOCGIFHWADDR

    def read(self, lba, sectors):
        self.tag += 1
        frame = struct.pack("!6s6sHBBHBBI", b"\xff" * 6, self.mac, ETH_P_AOE, 0x10, 0, self.shelf, 1, 0, self.tag)
        frame += struct.pack("!BBBB", 0x40, 0, sectors, 0x24) + struct.pack("<Q", lba)
        self.socket.send(frame.ljust(60, b"\0"))
        while True:
            answer = self.socket.recv(65536)
            flags, error, _, _, _, tag = struct.unpack("!BBHBBI", answer[14:24])
            if flags & 0x8 and tag == self.tag:
                assert error == 0 and len(answer) >= 36 + sectors * 512
                return answer[36:36 + sectors * 512]

    def read_on(self, mtu):
        """Returns bytes."""
        sectors = (mtu - 22) // 512
        at, deadline = 0, time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.read(at, sectors)
            at += sectors
        return at * 512


@pytest.mark.skipif(not shutil.which("vblade"), reason="vblade is not installed (Debian's package vblade)")
def test_frames_of_1500_bytes(model, tmp_path):
    rows = {}
    for mtu in (1500, 9000):
        with undo.Undo(tmp_path / "record.json") as changes, hostnet.HostNet(changes, tmp_path) as net, \
                netvolume.StorageHost(net, model.device, mtu=mtu) as storage:
            initiator = Initiator(storage.bridge, storage.shelf)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline: # the bridge begins to forward
                with contextlib.suppress(TimeoutError):
                    initiator.read(0, 1)
                    break
            figures, _, _ = measured(model.device, initiator.read_on, mtu)
            path = {name: value for name, value in storage.path.items() if name in ("mtu", "wire_mb_s")}
            rows[mtu] = {**row_of(figures, "dd-read", **path), "configuration": "net-guest"}
    assert "frame-size" in findings(rows[1500]), rows
    assert "frame-size" not in findings(rows[9000]), rows
    assert rows[9000]["mb_s"] > 1.3 * rows[1500]["mb_s"]
