# SPDX-License-Identifier: Apache-2.0
"""Programs that are measured: started, watched, stopped."""
import os
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
START_S = 15


class CannotMeasure(Exception):
    """Something that a row needs is missing or failed: told, and counted."""


def last_line(path):
    lines = Path(path).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


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
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
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
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
