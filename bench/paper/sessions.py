# SPDX-License-Identifier: Apache-2.0
"""Who runs workloads: the host itself, or a guest with one of the configurations' disks.

A session is a context. It says which processes carry its requests, makes the caches cold, and runs a shell's line.
"""
import contextlib
import os
import subprocess
from pathlib import Path

import guest as guest_dd
from paper import counters, mounts, workloads
from servers import CannotMeasure

RUN_S = 120
# Bytes, of the host's kernel and of the guest's. So small that a run of a few seconds writes back for nearly all of it, as one of 20 GB
# does: what is dirty when dd's last write returns is written by two at once, dd's flush and the kernel's own, which take pages from each
# other and leave small requests.
DIRTY_BACKGROUND, DIRTY = 4 << 20, 16 << 20
READ_AHEAD_MIB = 20 # more than mallee-blockd's filter readahead keeps, by default
FILE_S = 4 # a sparse file is as large as the disk writes in this time


def flush_cache(path):
    """Of this block device or file nothing is in the host's page cache; other programs keep theirs."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


class Session:
    """bench: what sessions share (disk, folder, build, image, accel, undo). size: bytes of the disk that may be used."""
    programs = None # the folder of stream and aio-load, as the workload sees it
    target = None   # the disk, as the workload sees it

    def __init__(self, bench, configuration):
        self.bench = bench
        self.configuration = configuration
        self.size = bench.disk.size
        self.flush_s = 0.0 # what the last run took longer than it knows, until its data was on the disk
        self.streamed = 0 # bytes of the stream that lie on the disk
        self.path = {}    # what is known of the way only once it is there

    @property
    def pids(self):
        return []

    @property
    def vcpus(self):
        return []

    @property
    def exits(self):
        return None

    def cool(self, workload):
        flush_cache(self.bench.disk.device)

    def prepare(self, workload, size):
        """Before a run, and not measured: the stream that is to be read is there. Who reads it writes it: nobody else knows what a
        guest or its volume caches."""
        if workload["id"] == "stream-read" and self.streamed < size:
            self.run(f"{self.programs}/stream write {self.target} {size}")
            self.streamed = size

    def run(self, line):
        """(its output, CPU seconds of processes that have ended by now)."""
        raise NotImplementedError

    def moment(self):
        return counters.Moment.now(self.bench.disk.device, self.pids, self.vcpus, self.exits, self.bench.disk.model_pids)


class HostSession(Session):
    def __init__(self, bench, configuration):
        super().__init__(bench, configuration)
        self.programs = bench.program("stream").parent
        self.target = bench.disk.device

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, line):
        before = os.times()
        with subprocess.Popen(["sh", "-c", line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              start_new_session=True) as process:
            try:
                text, _ = process.communicate(timeout=RUN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise CannotMeasure(f"it took longer than {RUN_S} s") from None
            except BaseException:
                os.killpg(process.pid, 9)
                raise
        after = os.times()
        return text, after.children_user + after.children_system - before.children_user - before.children_system


class GuestSession(Session):
    """A guest with the disk under test, the whole of it, by QEMU's own back end."""
    programs = "/bin"

    def __init__(self, bench, configuration):
        super().__init__(bench, configuration)
        self.target = configuration.get("disk")
        self.guest = None
        self.stack = contextlib.ExitStack()

    def storage(self):
        """What is below the guest's disk is made; returns QEMU's arguments."""
        return self.drive(self.bench.disk.device)

    def drive(self, path):
        words = ["-drive", f"if=none,id=disk,format=raw,file={path},{self.configuration['drive']},file.locking=off"]
        for device in self.configuration["devices"]:
            words += ["-device", device]
        return words

    def __enter__(self):
        log = self.bench.folder / f"{self.configuration['id']}.log"
        with contextlib.ExitStack() as stack:
            self.stack = stack
            self.guest = stack.enter_context(guest_dd.Guest(self.bench.image, log, self.storage(), modules=self.configuration["modules"],
                                                            disk=self.target, accel=self.bench.accel))
            self.limit_dirty()
            self.stack = stack.pop_all()
        return self

    def limit_dirty(self):
        self.guest.run(f"echo {DIRTY_BACKGROUND} > /proc/sys/vm/dirty_background_bytes; echo {DIRTY} > /proc/sys/vm/dirty_bytes", RUN_S)

    def __exit__(self, *_):
        self.stack.close()

    @property
    def pids(self):
        return [self.guest.process.pid]

    @property
    def vcpus(self):
        pid = self.guest.process.pid
        return [(pid, thread) for thread in counters.vcpu_threads(pid)]

    @property
    def exits(self):
        return self.guest.monitor.exits()

    def cool(self, workload):
        self.ask(guest_dd.COLD)
        super().cool(workload)

    def run(self, line):
        return self.ask(f"{line} 2>&1"), 0.0

    def ask(self, line):
        """A guest that does not answer in time may do so later, into the next answer: it is given up."""
        try:
            return self.guest.run(line, RUN_S)
        except CannotMeasure:
            self.guest.end()
            raise


class FileSession(GuestSession):
    """A guest with a sparse file on a file system on the disk: each run of a writer finds nothing but holes."""

    def storage(self):
        device, where = self.bench.disk.device, self.bench.folder / "files"
        where.mkdir(exist_ok=True)
        self._must("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", device, f"{self.size // 1024}k")
        self.stack.enter_context(mounts.private())
        self._must("mount", "-t", "ext4", "-o", "noinit_itable,noatime", device, where) # nothing in the background
        self.stack.callback(self._must, "umount", where)
        blocks = workloads.stream_blocks(self.size * 3 // 4) # the journal and the tables of inodes take their part
        if self.bench.disk.rate: # and to fill it takes a while
            blocks = min(blocks, max(2, round(self.bench.disk.rate * FILE_S / workloads.BLOCK)))
        self.size = blocks * (workloads.BLOCK + workloads.META)
        self.file = where / "disk.raw"
        self.filled = False
        with open(self.file, "wb") as f:
            f.truncate(self.size)
        return self.drive(self.file)

    @staticmethod
    def _must(*command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(f"{command[0]}: {done.stderr.strip()[-200:]}")

    def prepare(self, workload, size):
        if workload["write"]:
            self._must("fallocate", "--punch-hole", "--offset", "0", "--length", str(self.size), self.file)
            self.filled = False
        elif not self.filled: # as a guest's own writes would have left it, but in less than minutes
            self._must(self.bench.program("stream"), "write", self.file, workloads.most(workload | {"kind": "stream"}, self.size))
            self.filled = True
        subprocess.run(["sync", "--file-system", self.file], check=False)

    def cool(self, workload):
        super().cool(workload)
        flush_cache(self.file)


class VolumeSession(GuestSession):
    """Mallee's own path: the disk as a volume of mallee-blockd, with the filters that a storage controller gives it."""

    def storage(self):
        buffer = Path("/dev/shm") / f"mallee-bench-{os.getpid()}-volume"
        entry = self.bench.undo.add("file", path=str(buffer))
        self.stack.callback(self.bench.undo.drop, entry)
        self.volume = self.stack.enter_context(guest_dd.volume(self.bench.blockd, self.bench.disk, self.bench.folder,
                                                               [f"coalesce:buffer={buffer}", "readahead"]))
        return guest_dd.vhost_user_disk(self.volume.sock)

    @property
    def pids(self):
        return super().pids + [self.volume.process.pid]

    def cool(self, workload):
        """What it has read ahead, it drops for other reads: at the far end, where no run comes to."""
        super().cool(workload)
        if not workload["write"]:
            self.ask(f"/bin/dd if={self.target} of=/dev/null bs=1M count={READ_AHEAD_MIB} skip={(self.size >> 20) - READ_AHEAD_MIB} "
                     "iflag=direct")


def network_session(bench, configuration):
    """The rows on a network volume; apart, since netsession is made of the classes above."""
    from paper import netsession # pylint: disable=import-outside-toplevel
    return netsession.session(bench, configuration)


SESSIONS = {"host": HostSession, "device": GuestSession, "file": FileSession, "volume": VolumeSession, "network": network_session}
