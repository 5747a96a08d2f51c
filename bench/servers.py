# SPDX-License-Identifier: Apache-2.0
"""Programs that are measured: started, watched, stopped."""
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
START_S = 15


class CannotMeasure(Exception):
    """Something that a row needs is missing or failed: told, and counted."""


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """For Popen's preexec_fn: a child does not outlive a bench that was killed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def last_line(path):
    lines = Path(path).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def cpu_s(pid, thread=None):
    """CPU that a process has used, all of its threads; or one of them."""
    path = Path(f"/proc/{pid}/task/{thread}/stat") if thread else Path(f"/proc/{pid}/stat")
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except OSError:
        raise CannotMeasure(f"process {pid} ended on its own") from None
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_s():
    """CPU that this machine has spent on anything; and what its hypervisor kept from it."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS, fields[7] / TICKS


class Server:
    """A program that serves until it is stopped. ready: the path that tells that it does; None: at once."""

    def __init__(self, name, command, ready, log):
        self.name = name
        self.command = [str(word) for word in command]
        self.ready = ready
        self.log = log
        self.process = None

    def __enter__(self):
        if self.ready and os.path.exists(self.ready):
            os.unlink(self.ready)
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                start_new_session=True, preexec_fn=die_with_parent) # Ctrl-C is the bench's
            except FileNotFoundError:
                raise CannotMeasure(f"{self.command[0]} is missing") from None
        deadline = time.monotonic() + START_S
        while self.ready and not os.path.exists(self.ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise CannotMeasure(f"{self.name} did not start: {last_line(self.log)} (all of it: {self.log})")
            time.sleep(0.02)
        time.sleep(0.1)
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_s(self):
        """CPU that the process has used, all of its threads."""
        if self.process.poll() is not None:
            raise CannotMeasure(f"{self.name} ended on its own: {last_line(self.log)} (all of it: {self.log})")
        return cpu_s(self.process.pid)
