# SPDX-License-Identifier: Apache-2.0
"""The disk under test: modelled, a real one that holds nothing, or a file. Each is a context with `device`, a block device."""
import contextlib
import os
import re
import stat
import subprocess
from pathlib import Path

import guest as guest_dd
from paper import undo as undo_record
from servers import CannotMeasure

MIB = 1 << 20
MODEL_RATE = 112_000_000 # of the preset barracuda-7200.11
MODEL_BYTES = 1 << 30
FILE_BYTES = 1 << 30
READ_AHEAD_KB = 256 # the study's hosts read 512 sectors at once; a loop device keeps what its last file gave it
DEVICE_BYTES = 8 << 30 # no more of a real disk is touched


class Refused(Exception):
    """A disk that somebody may still want."""


# ---- what speaks against a disk ----

def _mounted(numbers):
    """Mount points of a device or its partitions, by its numbers: names differ."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] in numbers:
            return fields[4]
    for line in Path("/proc/mounts").read_text().splitlines(): # btrfs and its like have numbers of their own there
        source = line.split()[0]
        if source.startswith("/dev/") and os.path.exists(source):
            found = os.stat(source)
            if stat.S_ISBLK(found.st_mode) and f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" in numbers:
                return line.split()[1]
    return None


def _swap(numbers):
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        with contextlib.suppress(OSError):
            number = os.stat(line.split()[0]).st_rdev
            if f"{os.major(number)}:{os.minor(number)}" in numbers:
                return True
    return False


def _loop_over(device):
    for path in Path("/sys/block").glob("loop*"):
        backing = undo_record.backing_file(path.name)
        if backing and os.path.exists(backing) and os.path.realpath(backing) == os.path.realpath(device):
            return f"/dev/{path.name}"
    return None


def _held_by(rdev):
    """A process that has the device open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if not os.readlink(link).startswith("/dev/") or link.parts[2] == str(os.getpid()):
                continue # what is elsewhere may be on a file system that does not answer
            found = os.stat(link)
            if stat.S_ISBLK(found.st_mode) and found.st_rdev == rdev:
                return f"{(link.parents[1] / 'comm').read_text().strip()} (process {link.parts[2]})"
    return None


def signatures(device):
    """What wipefs would wipe: file systems, RAID and LVM members, partition tables; in words."""
    done = subprocess.run(["wipefs", "--no-act", "--noheadings", "--output", "TYPE", device], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"wipefs: {done.stderr.strip()}")
    probe = subprocess.run(["blkid", "--probe", "--output", "export", device], capture_output=True, text=True, check=False)
    if probe.returncode == 8:
        return ["several that contradict one another"]
    found = done.stdout.split() + re.findall(r"^(?:PT)?TYPE=(.*)$", probe.stdout, re.M)
    return sorted(set(found))


def _partitions(sys_block):
    return [path for path in sys_block.iterdir() if (path / "partition").exists()]


def check_free(device, destroy):
    """Refused, with the reason, unless nothing uses the disk and nothing is on it. destroy allows for what is on it, but never for
    what is in use: under a mounted file system nobody writes who may write at all."""
    if not os.path.exists(device) or not stat.S_ISBLK(os.stat(device).st_mode):
        raise Refused(f"{device} is no block device")
    rdev = os.stat(device).st_rdev
    sys_block = Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}").resolve()
    parts = _partitions(sys_block)
    numbers = {(path / "dev").read_text().strip() for path in [sys_block, *parts]}
    if where := _mounted(numbers):
        raise Refused(f"{device} is mounted on {where}: unmount it first")
    if _swap(numbers):
        raise Refused(f"{device} is used for swap")
    for path in [sys_block, *parts]:
        holders = [holder.name for holder in (path / "holders").iterdir()] if (path / "holders").is_dir() else []
        if holders:
            raise Refused(f"{device} is in use by {', '.join(holders)}")
    if other := _loop_over(device):
        raise Refused(f"{device} is in use by {other}")
    if (sys_block / "ro").read_text().strip() != "0":
        raise Refused(f"{device} is read-only")
    if who := _held_by(rdev):
        raise Refused(f"{device} is in use by {who}")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))
    except OSError as error:
        raise Refused(f"{device} is in use: {error.strerror}") from None
    found = signatures(device) + ([f"{len(parts)} partitions"] if parts else [])
    if found and not destroy:
        raise Refused(f"{device} holds data ({', '.join(found)}): the bench overwrites it; --destroy allows that")


# ---- disks ----

class UnderTest:
    """device: its path; size; rate: bytes a second where known, else None; model_pids: processes that only play it."""
    device = None
    rate = None
    settings = "?"

    def __init__(self, undo, size):
        self.undo = undo
        self.size = size
        self.held = None

    @property
    def model_pids(self):
        return []

    def hold(self):
        """Open while it is measured, as a mounted disk is: the last close of a device empties its cache."""
        self.held = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)

    def release(self):
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def largest_request_sectors(self):
        number = os.stat(self.device).st_rdev
        path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        queue = path / "queue" if (path / "queue").is_dir() else path.parent / "queue"
        return int((queue / "max_sectors_kb").read_text()) * 2

    def set_read_ahead(self):
        """Of a loop device; of a real disk it is as its owner has it."""
        path = Path(f"/sys/block/{os.path.basename(self.device)}/queue/read_ahead_kb")
        entry = self.undo.add("sysctl", path=str(path), value=path.read_text().strip())
        path.write_text(str(READ_AHEAD_KB))
        return entry

    def fill(self):
        """Written throughout once: what was never written, or trimmed, is read faster than any disk can."""
        block = os.urandom(MIB)
        fd = os.open(self.device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for at in range(0, self.size, MIB):
                os.pwrite(fd, block[:min(MIB, self.size - at)], at)
            os.fsync(fd)
        finally:
            os.close(fd)


class ModelDisk(UnderTest):
    """A mechanical disk that is played: mallee-blockd's filter `disk` over memory, a file by FUSE, a loop device on it."""

    def __init__(self, undo, blockd, folder, scale):
        super().__init__(undo, MODEL_BYTES)
        self.rate = MODEL_RATE / scale
        self.settings = "model barracuda-7200.11" + (f", at 1/{scale:g} of its rate" if scale != 1 else "")
        self.disk = guest_dd.Disk(blockd, folder, int(self.rate), str(MODEL_BYTES))

    @property
    def model_pids(self):
        return [self.disk.server.process.pid]

    def __enter__(self):
        self.entries = [self.undo.add("mount", path=str(self.disk.file))]
        self.disk.__enter__()
        self.device = self.disk.device
        self.entries.append(self.undo.add("loop", device=self.device, file=undo_record.backing_file(self.device)))
        self.entries.append(self.set_read_ahead())
        self.hold()
        return self

    def __exit__(self, *_):
        self.release()
        for entry in reversed(self.entries[1:]):
            self.undo.drop(entry)
        self.disk.device = None
        self.disk.__exit__()
        self.undo.drop(self.entries[0])


class RealDisk(UnderTest):
    """A block device, and no more of it than DEVICE_BYTES."""

    def __init__(self, undo, device, destroy):
        check_free(device, destroy)
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        size = os.lseek(fd, 0, os.SEEK_END)
        os.close(fd)
        super().__init__(undo, min(size, DEVICE_BYTES))
        if size < 512 * MIB:
            raise Refused(f"{device} is too small: {size // MIB} MiB, where 512 are needed")
        self.device = device
        self.destroy = destroy
        self.settings = f"disk {device}, {size / 1e9:.0f} GB"

    def __enter__(self):
        check_free(self.device, self.destroy)
        if self.destroy:
            done = subprocess.run(["wipefs", "--all", "--quiet", self.device], capture_output=True, text=True, check=False)
            if done.returncode:
                raise CannotMeasure(f"wipefs: {done.stderr.strip()}")
        self.hold()
        self.fill()
        return self

    def __exit__(self, *_):
        self.release()
        subprocess.run(["wipefs", "--all", "--quiet", self.device], capture_output=True, check=False) # of the bench's own


class FileDisk(UnderTest):
    """A loop device over a written file in a folder: the disk that this folder is on, as far as its file system lets one see."""

    def __init__(self, undo, folder):
        super().__init__(undo, FILE_BYTES)
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise Refused(f"{folder} is no folder")
        free = os.statvfs(self.folder)
        if free.f_bavail * free.f_frsize < FILE_BYTES + 256 * MIB:
            raise Refused(f"{folder} has no room for a file of {FILE_BYTES // MIB} MiB")
        self.settings = f"file in {self.folder}"

    def __enter__(self):
        self.path = self.folder / f"mallee-bench-{os.getpid()}.raw"
        self.entries = [self.undo.add("file", path=str(self.path))]
        with open(self.path, "wb") as f:
            f.truncate(self.size)
        done = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", self.path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(f"losetup: {done.stderr.strip()} (direct I/O on {self.folder} is needed)")
        self.device = done.stdout.strip()
        self.entries.append(self.undo.add("loop", device=self.device, file=str(self.path)))
        self.entries.append(self.set_read_ahead())
        self.hold()
        self.fill()
        return self

    def __exit__(self, *_):
        self.release()
        for entry in reversed(self.entries):
            self.undo.drop(entry)
