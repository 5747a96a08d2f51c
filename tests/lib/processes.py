# SPDX-License-Identifier: Apache-2.0
"""The processes of the clouds under test, and no others: told by the MALLEE_STATE in their environment."""
import os
import signal
import time
from pathlib import Path


def state_of(pid):
    """The MALLEE_STATE that a process was started with; None when it has none or cannot be looked at."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for item in environ.split(b"\0"):
        if item.startswith(b"MALLEE_STATE="):
            return os.fsdecode(item.partition(b"=")[2])
    return None


def is_below(path, root):
    root = str(root).rstrip("/")
    return path == root or path.startswith(root + "/")


def alive(pid):
    """Whether it runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def below(root):
    """Pids of all processes whose state folder lies in root, ours and our parents' left out."""
    mine = {os.getpid(), os.getppid()}
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in mine:
            continue
        state = state_of(entry)
        if state and is_below(state, root) and alive(entry):
            found.append(int(entry))
    return found


def name_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def sweep(root, grace_s=5):
    """End what is left of the clouds in root. Returns "name (pid)" of each."""
    left = below(root)
    told = [f"{name_of(pid)} ({pid})" for pid in left]
    for signo, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + wait_s
        while left and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signo)
                except ProcessLookupError:
                    pass
            time.sleep(0.2)
            left = below(root)
    return told
