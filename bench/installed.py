# SPDX-License-Identifier: Apache-2.0
"""`mallee bench` where Mallee is installed, and there is neither source nor build folder.

The experiments find programs in a build folder, and make the guest's image there. Where there is none, one is made of links to what
is installed, in the user's cache: PREFIX/bin/mallee-blockd is its src/cmd/mallee-blockd, PREFIX/libexec/mallee/bench/stream its
bench/stream.
"""
import os
from pathlib import Path


def cache():
    if os.environ.get("MALLEE_CACHE", "").startswith("/"):
        return Path(os.environ["MALLEE_CACHE"])
    if os.geteuid() == 0:
        return Path("/var/cache/mallee")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mallee"


def link(path, target):
    """Anew: an upgrade may have moved the target. In one step, as another run may be using it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.symlink_to(target)
    os.replace(beside, path)


def build_folder(prefix):
    """A folder that looks like a build's."""
    folder = cache() / "bench-build"
    link(folder / "mallee", prefix / "bin" / "mallee")
    link(folder / "src" / "cmd" / "mallee-blockd", prefix / "bin" / "mallee-blockd")
    for program in sorted((prefix / "libexec" / "mallee" / "bench").glob("*")):
        link(folder / "bench" / program.name, program)
    return folder


def settle(bench):
    """Sets MALLEE_BUILD, which the experiments look at, when `bench` is PREFIX/share/mallee/bench."""
    is_source = (bench.parent / "meson.build").exists()
    if not is_source and not os.environ.get("MALLEE_BUILD"):
        os.environ["MALLEE_BUILD"] = str(build_folder(bench.parents[2]))
