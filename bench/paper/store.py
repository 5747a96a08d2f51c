# SPDX-License-Identifier: Apache-2.0
"""Where results are kept: every run's, by kind and time, so that they can be shown and compared later.

In the cloud's folder ($MALLEE_STATE, or /var/lib/mallee where there is a cloud and it may be written), else in the source's
build/bench/results, else in the user's own folder for such things.
"""
import os
import re
from pathlib import Path

from paper.result import BadResult, read, write_json

SOURCE = Path(__file__).resolve().parent.parent.parent
CLOUD = Path("/var/lib/mallee")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def folder():
    if os.environ.get("MALLEE_STATE"):
        return Path(os.environ["MALLEE_STATE"]) / "bench"
    if (CLOUD / "mallee.conf").exists() and os.access(CLOUD, os.W_OK):
        return CLOUD / "bench"
    if (SOURCE / "meson.build").exists():
        return SOURCE / os.environ.get("MALLEE_BUILD", "build") / "bench" / "results"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mallee" / "bench"


def keep(result):
    """Keeps it; returns the file. Two within one second get names of their own."""
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    time = re.sub(r"[^0-9T]", "", str(result.get("date", ""))[:19]) or "undated"
    stem, count = f"{result['kind']}-{time}", 1
    while True:
        path = where / f"{stem}{'' if count == 1 else f'-{count}'}.json"
        try:
            path.open("x").close()
            break
        except FileExistsError:
            count += 1
    write_json(result, path)
    return path


def kept():
    """Files of all kept results, the newest last."""
    files = [path for path in folder().glob("*.json") if path.is_file() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (path.stat().st_mtime, path.name))


def find(name):
    """The file that is meant: a path, the name of a kept result, or `last`."""
    if name == "last":
        files = kept()
        if not files:
            raise BadResult(f"no result is kept in {folder()} yet")
        return files[-1]
    if os.path.exists(name):
        return Path(name)
    if NAME.fullmatch(name):
        path = folder() / (name if name.endswith(".json") else name + ".json")
        if path.is_file():
            return path
    raise BadResult(f"{name}: neither a file nor a result kept in {folder()}; `mallee bench report` lists those")


def load(name):
    return read(find(name))


def list_text():
    """A line a kept result."""
    lines = []
    for path in kept():
        try:
            result = read(path)
        except BadResult as e:
            lines.append(f"{path.stem}  unreadable: {e}")
            continue
        host = result.get("host") or {}
        lines.append(f"{path.stem}  {result.get('date', 'undated')}  {len(result['rows'])} rows  {host.get('cpu', 'unknown CPU')}, "
                     f"{host.get('kernel', 'unknown kernel')}")
    return "\n".join(lines) if lines else f"No result is kept in {folder()} yet: `mallee bench disk` makes one."
