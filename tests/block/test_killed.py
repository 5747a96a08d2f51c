# SPDX-License-Identifier: Apache-2.0
"""A guest's queue goes on over the death of what serves it: what was in flight is done by the successor, once for the guest, with
every filter in between, and over a server that dies as well."""
import json
import threading

import pytest

from conftest import Blockd, master, program, run

MIB = 1 << 20
SECONDS, KILLS = 5, 15


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    with open(path, "wb") as f:
        f.truncate(16 * MIB)
    (tmp_path / "source").write_bytes(bytes(range(256)) * (16 * MIB // 256))
    return path


def verify(tmp_path, back, *more, again=False):
    """again: it may end by itself, and is then started anew; a shell does that, with which it dies."""
    command = [program(), "--back", back, *more, "--front", f"vhost-user:socket={tmp_path}/v.sock"]
    if again:
        command = ["sh", "-c", f"'while :; do setpriv --pdeathsig KILL {' '.join(command)}; sleep 0.05; done'"]
    said = run(master(), "--socket", tmp_path / "v.sock", "--verify", "--seconds", SECONDS, "--kills", KILLS, "--depth", "32", "--bs", "8192",
               "--span", 4 * MIB, "--spawn", " ".join(command), timeout=100)
    done = json.loads(said.splitlines()[-1])
    assert done["ok"] and done["kills"] == KILLS, said


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_plain(disk, tmp_path, engine):
    verify(tmp_path, f"file:path={disk}", "--io", engine)


def test_every_filter(disk, tmp_path):
    verify(tmp_path, f"file:path={disk}", "--filter", "throttle:iops=100000", "--filter", f"coalesce:buffer={tmp_path}/buffer,size=2M", "--filter",
           "readahead", "--filter", f"snap:map={tmp_path}/changes", "--filter",
           f"cow:source=file:path={tmp_path}/source,,read-only=on,map={tmp_path}/map,fill-rate=2M")


def test_over_a_server_that_dies(disk, tmp_path):
    """Both ends are killed, not at the same time."""
    far = []
    ended = threading.Event()

    def serve():
        far.append(Blockd(tmp_path, "far", ["--back", f"file:path={disk}", "--front", f"nbd:socket={tmp_path}/far.sock,exclusive=on"]))
        far[-1].wait_for((tmp_path / "far.sock").exists, "socket")

    def kill_and_serve():
        while not ended.wait(0.7):
            far[-1].kill()
            serve()

    serve()
    thread = threading.Thread(target=kill_and_serve)
    thread.start()
    try:
        verify(tmp_path, f"nbd:socket={tmp_path}/far.sock,reconnect-ms=20", "--filter", f"coalesce:buffer={tmp_path}/buffer,size=2M", "--filter",
               f"snap:map={tmp_path}/changes", "--filter", f"cow:source=zero,map={tmp_path}/map,fill-rate=2M", again=True)
    finally:
        ended.set()
        thread.join()
        far[-1].kill()
    assert len(far) > 3
