# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts: of a disk, as iostat reads it, and of processors."""
import os
import time
from dataclasses import dataclass
from pathlib import Path

from servers import busy_s, cpu_s

SECTOR = 512


@dataclass
class Disk:
    """Counters of a block device (Linux, Documentation/block/stat.rst)."""
    reads: int
    read_sectors: int
    writes: int
    write_sectors: int
    busy_ms: int
    weighted_ms: int
    flushes: int

    @classmethod
    def read(cls, device):
        number = os.stat(device).st_rdev
        fields = [int(word) for word in Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()]
        return cls(reads=fields[0], read_sectors=fields[2], writes=fields[4], write_sectors=fields[6], busy_ms=fields[9],
                   weighted_ms=fields[10], flushes=fields[15] if len(fields) > 15 else 0)

    def since(self, before):
        return Disk(**{name: (value - getattr(before, name)) for name, value in vars(self).items()})

    @property
    def requests(self):
        return self.reads + self.writes

    @property
    def sectors(self):
        return self.read_sectors + self.write_sectors


def columns(moved, seconds):
    """avgrq-sz, avgqu-sz, %util of what was counted in so many seconds."""
    return {"avgrq_sectors": moved.sectors / moved.requests if moved.requests else None,
            "avgqu": moved.weighted_ms / 1000 / seconds,
            "util_percent": min(100.0, moved.busy_ms / 10 / seconds)}


def vcpu_threads(pid):
    """QEMU's threads that run the guest's processors (it is started with debug-threads=on)."""
    threads = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("CPU "):
            threads.append(int(task.name))
    return sorted(threads)


@dataclass
class Moment:
    """All counters at once; the path is what carries the guest's requests, the model the disk that is only played."""
    at: float
    disk: Disk
    path_cpu: float
    vcpu_cpu: list # of each
    exits: int     # of all, out of KVM; None: not counted
    model_cpu: float
    busy: float
    steal: float

    @classmethod
    def now(cls, device, pids, vcpus, exits, model_pids):
        """pids: of the path; vcpus: (pid, thread)."""
        busy, steal = busy_s()
        return cls(at=time.monotonic(), disk=Disk.read(device), path_cpu=sum(cpu_s(pid) for pid in pids),
                   vcpu_cpu=[cpu_s(pid, thread) for pid, thread in vcpus], exits=exits, model_cpu=sum(cpu_s(pid) for pid in model_pids),
                   busy=busy, steal=steal)


def busiest(begin, end):
    """CPU seconds of the virtual processor that took the most of them: a program that runs on one is bound by one."""
    return max((b - a for a, b in zip(begin, end)), default=0.0)


def cores():
    return os.cpu_count() or 1
