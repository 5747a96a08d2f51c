# SPDX-License-Identifier: Apache-2.0
"""What a bench changes on the machine, and how it is put back, whatever ends the bench.

Each change is written down before it is made. A bench that ends in any way but SIGKILL undoes its changes itself, last one first;
what a killed one left is undone by the next that starts. The record is also the lock: one bench at a time. It lies in /run,
since a restart of the machine undoes these changes, too.
"""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from servers import CannotMeasure

RECORD = Path(os.environ.get("MALLEE_BENCH_RECORD", "/run/mallee-bench.json"))
VM = Path("/proc/sys/vm")


def _quiet(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0


def backing_file(device):
    """Of a loop device; None: it has none."""
    try:
        return Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file").read_text().strip()
    except OSError:
        return None


def _undo_sysctl(entry):
    Path(entry["path"]).write_text(entry["value"])


def _undo_loop(entry):
    if backing_file(entry["device"]) == entry["file"]: # it may be another's by now
        _quiet("losetup", "--detach", entry["device"])


def _undo_mount(entry):
    if os.path.ismount(entry["path"]) or not os.path.exists(entry["path"]): # a dead FUSE mount does not exist
        _quiet("umount", entry["path"]) or _quiet("umount", "--lazy", entry["path"])


def _undo_file(entry):
    path = Path(entry["path"])
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _undo_command(entry):
    _quiet(*entry["command"])


UNDO = {"sysctl": _undo_sysctl, "loop": _undo_loop, "mount": _undo_mount, "file": _undo_file, "command": _undo_command}


def last_state(text):
    """Of a record: its last line that is whole."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            return json.loads(line)
    return []


class Undo:
    """The list of changes, as a context: its end undoes them."""

    def __init__(self, record=RECORD):
        self.record = Path(record)
        self.entries = []
        self.file = None

    def __enter__(self):
        try:
            self.file = open(self.record, "a+")
        except OSError as error:
            raise CannotMeasure(f"{self.record}: {error.strerror}: the bench needs root") from None
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise CannotMeasure(f"another mallee bench is running (it holds {self.record})") from None
        self.file.seek(0)
        self.entries = last_state(self.file.read())
        self.undo_all()
        return self

    def __exit__(self, *_):
        self.undo_all()
        self.file.close() # the file stays: who waits for its lock would else hold another

    def _write(self):
        """A line more with all of it, so that at no moment there is none; the file is emptied when nothing is left to undo."""
        if self.entries:
            self.file.write(json.dumps(self.entries) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        else:
            self.file.truncate(0)

    def undo_all(self):
        """Not to be interrupted: a second Ctrl-C waits."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            while self.entries:
                entry = self.entries[-1]
                try:
                    UNDO[entry["kind"]](entry)
                except OSError:
                    pass # gone already
                self.entries.pop()
                self._write()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def add(self, kind, **entry):
        """Before the change is made. Returns what drop() takes."""
        entry = {"kind": kind, **entry}
        self.entries.append(entry)
        self._write()
        return entry

    def drop(self, entry):
        """Undo one by itself, now."""
        UNDO[entry["kind"]](entry)
        self.entries.remove(entry)
        self._write()

    def set_sysctl(self, name, value):
        """vm/dirty_bytes and its like; returns nothing, as the end restores it."""
        path = Path("/proc/sys") / name
        self.add("sysctl", path=str(path), value=path.read_text().strip())
        path.write_text(str(value))

    def limit_dirty(self, background_bytes, most_bytes):
        """Of each pair of bytes and ratio one is 0, and writing one makes the other 0: what is not 0 is restored."""
        for name, value in (("dirty_background", background_bytes), ("dirty", most_bytes)):
            old = (VM / f"{name}_bytes").read_text().strip()
            if old == "0":
                self.add("sysctl", path=str(VM / f"{name}_ratio"), value=(VM / f"{name}_ratio").read_text().strip())
            else:
                self.add("sysctl", path=str(VM / f"{name}_bytes"), value=old)
            (VM / f"{name}_bytes").write_text(str(value))


def end_on_signals():
    """SIGTERM and SIGHUP end the program as Ctrl-C does: through everybody's __exit__."""
    def on_signal(number, _frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
