# SPDX-License-Identifier: Apache-2.0
"""A process that has given up what serving does not take goes on doing all that it serves."""
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import ask, master, program, qemu_io, run, tool

MIB = 1 << 20


def status(pid, name):
    text = Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{name}:\s*(\S+)$", text, re.M).group(1)


def thread_status(pid, name):
    return {re.search(rf"^{name}:\s*(\S+)$", (t / "status").read_text(), re.M).group(1) for t in Path(f"/proc/{pid}/task").iterdir()}


def by_default():
    """Off in a build with sanitizers."""
    said = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True).stdout
    return "end the process (on)" in said


@pytest.fixture(autouse=True)
def needs_the_sandbox():
    if not by_default():
        pytest.skip("a build with sanitizers has no sandbox")


def test_all_threads_are_in_it(blockd, tmp_path):
    b = blockd("mem:size=1M", "--queues", "3", "--control", str(tmp_path / "c"))
    assert thread_status(b.pid, "Seccomp") == {"2"} and thread_status(b.pid, "NoNewPrivs") == {"1"}
    kept = int(status(b.pid, "CapEff"), 16)
    assert kept & ~(1 << 1 | 1 << 10) == 0  # CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE
    open_one = blockd("mem:size=1M", "--sandbox", "off", name="b")
    assert thread_status(open_one.pid, "Seccomp") == thread_status(os.getpid(), "Seccomp")


def test_another_user_keeps_nothing(blockd, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tmp_path / "run"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path.owner() == "root" and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    os.chown(folder, 12345, 12345)
    b = blockd("mem:size=1M", "--user", "12345:12345", front=[f"nbd:socket={folder}/s"])
    assert {status(b.pid, f"Cap{kind}") for kind in ("Eff", "Prm", "Bnd", "Inh")} == {"0" * 16}
    # Not even its own user may look into its memory: it is not dumpable.
    done = subprocess.run(["/usr/bin/setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "/usr/bin/head", "-c1", f"/proc/{b.pid}/mem"],
                          capture_output=True, text=True, check=False)
    assert done.returncode and "denied" in done.stderr


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_the_whole_stack(blockd, tmp_path, engine):
    """Every filter, three fronts, a snapshot made and read at run time, growth, and the end of all that."""
    disk = tmp_path / "disk"
    with open(disk, "wb") as f:
        f.truncate(64 * MIB)
    source = tmp_path / "source"
    source.write_bytes(b"\x05" * (32 * MIB))
    control = tmp_path / "control"
    fronts = [f"nbd:socket={tmp_path}/a.sock", f"vhost-user:socket={tmp_path}/v.sock"]
    if os.geteuid() == 0 and os.path.exists("/dev/fuse"):
        fronts.append(f"fuse:mount={tmp_path}/volume")
    b = blockd(f"file:path={disk}", "--filter", "throttle:iops=1000000", "--filter", f"coalesce:buffer={tmp_path}/buffer", "--filter", "readahead",
               "--filter", f"snap:map={tmp_path}/changes", "--filter", f"cow:source=file:path={source},,read-only=on,map={tmp_path}/map",
               "--queues", "2", "--io", engine, "--control", str(control), front=fronts)
    assert json.loads(ask(control, "info"))["io"] == engine
    qemu_io(b.uri, "read -P 5 1M 20M", "write -P 7 1M 8M", "write -z 12M 2M", "discard 20M 2M", "flush", "read -P 7 1M 8M", "write -f -P 6 30M 4k")
    ask(control, "snap", "begin", f"name=one,scratch={tmp_path}/scratch,scratch-size=16M")
    qemu_io(b.uri, "write -P 8 1M 8M", "flush")
    view = f"nbd+unix:///snap/one?socket={b.socket}"
    run(tool("qemu-io"), "-r", "-f", "raw", view, "-c", "read -P 7 1M 8M")
    assert not (tmp_path / "scratch").exists()
    ask(control, "snap", "end", "name=one,commit=on")
    if len(fronts) == 3:
        with open(tmp_path / "volume", "r+b") as f:
            f.seek(2 * MIB)
            assert f.read(4096) == b"\x08" * 4096
            f.write(b"\x09" * MIB)
            f.flush()
            os.fsync(f.fileno())
    run(master(), "--socket", tmp_path / "v.sock", "--seconds", "0.2", "--depth", "8")
    ask(control, "resize", str(96 * MIB))
    qemu_io(b.uri, "write -P 3 90M 1M", "read -P 3 90M 1M", "flush")
    ask(control, "stats"), ask(control, "metrics"), ask(control, "flush"), ask(control, "coalesce", "drain")
    assert b.stop() == 0, b.text()
    assert not (tmp_path / "volume").exists()


def test_a_device(blockd, tmp_path):
    """Discards of a device are a call of their own."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("loop devices take root")
    image = tmp_path / "image"
    image.write_bytes(b"x" * (8 * MIB))
    loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        b = blockd(f"file:path={loop}")
        qemu_io(b.uri, "discard 1M 4M", "write -P 1 0 1M", "write -z 6M 1M", "flush", "read -P 1 0 1M")
        assert b.stop() == 0, b.text()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_an_nbd_client_dials_again(blockd, tmp_path):
    """By name over TCP, and over a unix socket."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def server():
        return blockd("mem:size=1M", name="far", front=[f"nbd:address=127.0.0.1,port={port}", f"nbd:socket={tmp_path}/far.sock"])

    far = server()
    near = blockd(f"nbd:host=localhost,port={port},reconnect-ms=20", name="near")
    beside = blockd(f"nbd:socket={tmp_path}/far.sock,reconnect-ms=20", name="beside")
    for _ in range(2):
        for b in (near, beside):
            qemu_io(b.uri, "write -P 1 0 64k", "read -P 1 0 64k")
        far.kill()
        far = server()
    assert near.stop() == 0 and beside.stop() == 0
