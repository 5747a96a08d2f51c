# SPDX-License-Identifier: Apache-2.0
"""What lies on the disk, and what must not."""
import contextlib
import os
import re
from pathlib import Path

MIB = 1 << 20
TMPFS = [Path("/dev/shm"), Path("/run")]


def files_below(folder):
    """Of a tree that lives: what goes meanwhile is left out."""
    for below, _, names in os.walk(folder):
        for path in (Path(below, name) for name in names):
            if not path.is_symlink() and path.is_file():
                yield path


def files_with(folder, needles, skip=()):
    """Which files hold any of these, whatever they are: data, databases and their journals, logs, records of what runs."""
    found = set()
    for path in files_below(folder):
        if path in skip:
            continue
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            size, at, before = os.fstat(fd).st_size, 0, b""
            while at < size:
                try:
                    at = max(at, os.lseek(fd, at, os.SEEK_DATA))  # volumes are sparse here
                except OSError:
                    break
                part = os.pread(fd, 4 * MIB, at)
                if not part:
                    break
                if any(needle in before + part for needle in needles):
                    found.add(str(path.relative_to(folder)))
                    break
                at, before = at + len(part), part[-256:]
        finally:
            os.close(fd)
    return found


def cloud_id(cloud):
    text = (cloud.state / "mallee.conf").read_text()
    return re.search(r"^cloud_id *= *(\S+)", text, re.M).group(1)


def keys_at_hand(cloud):
    """The files that hold keys: the masters', and those of what is served."""
    files = sorted((cloud.state / "sc" / "keys").glob("master-*"))
    for place in TMPFS:
        for folder in place.glob(f"mallee-keys-{cloud_id(cloud)}-*"):
            files += files_below(folder)
    return files


def read_keys(cloud):
    """{path: (mode, key)} of keys_at_hand, but for those that went meanwhile."""
    found = {}
    for path in keys_at_hand(cloud):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
            found[path] = os.fstat(f.fileno()).st_mode, f.read()
    return found


def needles_of(key):
    return [key[:16], key[-16:], key.hex()[:32].encode(), key.hex()[-32:].encode()]
