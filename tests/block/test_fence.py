# SPDX-License-Identifier: Apache-2.0
"""The fence: what a killed process has left in the kernel ends before its successor looks at the file."""
import fcntl
import json
import signal
import socket
import subprocess
import time

import pytest

from conftest import Blockd, master, program, run, tool

MIB = 1 << 20
BLOCK = 64 << 10


def is_locked(path):
    with open(path, "rb") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True


def greets(path):
    """Somebody serves there. A process that cannot end yet may still be connected to, but says nothing."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(0.05)
        try:
            s.connect(str(path))
            return bool(s.recv(8))
        except OSError:
            return False


def reads(slow):
    return slow.stats()["disk"]["read"]["ops"]


def wait_until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("engine", ["uring", "threads"])
@pytest.mark.parametrize("op", ["write", "read"])
def test_successor_waits(slow, tmp_path, engine, op):
    """It neither serves nor reads nor writes before the dead one's last I/O is out of the kernel."""
    front = tmp_path / "v.sock"
    arguments = ["--back", f"file:path={slow.file},lock-wait=60000", "--front", f"nbd:socket={front}", "--io", engine]
    uri = f"nbd+unix:///?socket={front}"
    first = Blockd(tmp_path, "first", arguments)
    first.wait_for(lambda: "\"serving\"" in first.text(), "\"serving\"")
    run(tool("qemu-io"), "-f", "raw", uri, "-c", "write -P 1 8M 64k", "-c", "flush")
    slow.hold(op)
    command = "write -P 2 8M 64k" if op == "write" else "read 8M 64k"
    client = subprocess.Popen([tool("qemu-io"), "-f", "raw", uri, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = None
    try:
        wait_until(slow.held, "request at the disk")
        first.process.kill()
        client.kill()
        # With io_uring it is gone at once, though its I/O is not; a thread that waits for the disk keeps its process.
        wait_until(lambda: first.process.poll() is not None or engine == "threads", "end of the killed process")
        assert is_locked(slow.file)
        before = reads(slow)
        second = Blockd(tmp_path, "second", arguments)
        for _ in range(20):
            time.sleep(0.1)
            assert "\"serving\"" not in second.text() and second.process.poll() is None
            assert not greets(front)
        assert slow.held() and is_locked(slow.file) and (op == "read" or reads(slow) == before)
        slow.release()
        second.wait_for(lambda: "\"serving\"" in second.text(), "\"serving\"")
        assert first.process.wait(30) == -signal.SIGKILL
        run(tool("qemu-io"), "-f", "raw", uri, "-c", f"read -P {2 if op == 'write' else 1} 8M 64k", "-c", "write -P 3 8M 64k", "-c", "flush", "-c", "read -P 3 8M 64k")
        assert second.stop() == 0
    finally:
        slow.release()
        for b in (first, second):
            if b:
                b.kill()
        client.kill()
        client.wait()
    with open(slow.file, "rb") as f:
        f.seek(8 * MIB)
        assert f.read(BLOCK) == b"\x03" * BLOCK


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_killed_over_and_over(slow, tmp_path, engine):
    """A guest's queue, whose requests take the disk some time, some of them long: every kill leaves some in the kernel, and
    without the lock they would end upon what the successor has written since."""
    slow.rule("id=0,op=change,ppm=100000,delay=1000")
    slow.rule("id=1,op=any,delay=10")
    command = f"{program()} --back file:path={slow.file} --front vhost-user:socket={tmp_path}/v.sock --io {engine}"
    said = run(master(), "--socket", tmp_path / "v.sock", "--verify", "--seconds", "5", "--kills", "6", "--depth", "24", "--bs", "16384",
               "--span", str(MIB // 2), "--spawn", command, timeout=100)
    done = json.loads(said.splitlines()[-1])
    assert done["ok"] and done["kills"] == 6
