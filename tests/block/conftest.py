# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the block engine's Python tests: `blockd` starts mallee-blockd out of MALLEE_BUILD, and sees that it ends well."""
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
BUILD = SOURCE / os.environ.get("MALLEE_BUILD", "build")
START_S = 20
MIB = 1 << 20
SLOW_BYTES = 32 * MIB


def program():
    for path in (BUILD / "mallee-blockd", BUILD / "src" / "cmd" / "mallee-blockd"):
        if path.is_file():
            return str(path)
    raise AssertionError(f"mallee-blockd is not built in {BUILD}")


def master():
    """A guest's driver without a guest: bench/README.md."""
    path = BUILD / "bench" / "vhost-master"
    assert path.is_file(), f"vhost-master is not built in {BUILD}"
    return str(path)


def tool(name):
    """A program that a test needs; without it the test is skipped."""
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command, timeout=60, ok=True):
    result = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace", timeout=timeout)
    if ok:
        assert result.returncode == 0, f"{command}: {result.stdout}"
    return result.stdout


def qemu_io(uri, *commands, ok=True):
    arguments = [a for c in commands for a in ("-c", c)]
    output = run(tool("qemu-io"), "-f", "raw", uri, *arguments, ok=ok)
    if ok:
        assert "failed" not in output.lower(), output
    return output


def ask(path, *command, ok=True):
    """A command on a control socket: what it says."""
    done = subprocess.run([program(), "--to", path, *command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout if ok else done.stderr


class Guest:
    """A guest's driver on a vhost-user socket: see vhost_io.c. guest("write 0 4096 7") == "ok"."""

    def __init__(self, socket):
        path = BUILD / "tests" / "block" / "vhost_io"
        assert path.is_file(), f"vhost_io is not built in {BUILD}"
        self.process = subprocess.Popen([path, str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Blockd:
    """One mallee-blockd. Its log is in `log`; `stop` returns its exit code."""

    def __init__(self, folder, name, arguments):
        self.log = folder / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([program(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self):
        return self.process.pid

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, condition, what):
        end = time.monotonic() + START_S
        while not condition():
            assert self.process.poll() is None, f"mallee-blockd ended: {self.text()}"
            assert time.monotonic() < end, f"no {what}: {self.text()}"
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"mallee-blockd did not stop: {self.text()}") from None

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def blockd(tmp_path):
    """blockd(back, *more, front="nbd"): a mallee-blockd whose socket is <tmp_path>/NAME.sock, returned with its URI."""
    running = []

    def start(back, *more, name="a", front=None):
        socket = tmp_path / f"{name}.sock"
        fronts = [f"nbd:socket={socket}"] if front is None else front
        arguments = ["--back", back]
        for spec in fronts:
            arguments += ["--front", spec]
        b = Blockd(tmp_path, name, [*arguments, *more])
        b.socket = socket
        b.uri = f"nbd+unix:///?socket={socket}"
        running.append(b)
        b.wait_for(lambda: "msg=\"serving\"" in b.text(), "\"serving\" in its log")
        return b

    yield start
    codes = [b.stop() for b in running if b.process.returncode is None]
    assert not any(codes), "mallee-blockd's exit code"


@pytest.fixture
def slow(blockd, tmp_path):
    """A loop device on a mounted volume of ours, whose fault filter holds, delays or fails requests as it is told; a file system on
    it, and in that `slow.file`."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        pytest.skip("loop devices and mounts take root")

    class Slow:
        control = tmp_path / "slow.control"
        mount = tmp_path / "slow"
        file = mount / "disk.raw"

        def stats(self):
            return json.loads(ask(self.control, "stats"))

        def hold(self, op):
            self.rule(f"op={op},stall=on")

        def rule(self, text):
            ask(self.control, "fault", "set", text)

        def release(self):
            ask(self.control, "fault", "clear")
            ask(self.control, "fault", "release")

        def held(self):
            return self.stats()["layers"]["fault"]["stalled"]

    s = Slow()
    blockd("mem:size=96M", "--filter", "fault", "--control", str(s.control), name="slow", front=[f"fuse:mount={tmp_path}/volume"])
    loop = run("losetup", "-f", "--show", "--direct-io=on", tmp_path / "volume").strip()
    try:
        run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", loop)
        s.mount.mkdir()
        run("mount", "-o", "noatime", loop, s.mount)
        try:
            s.file.write_bytes(random.Random(1).randbytes(SLOW_BYTES))
            run("sync", "-f", s.mount)
            s.loop = loop
            yield s
        finally:
            s.release()
            end = time.monotonic() + 20
            while subprocess.run(["umount", s.mount], capture_output=True, check=False).returncode and time.monotonic() < end:
                time.sleep(0.1)
            subprocess.run(["umount", "-l", s.mount], capture_output=True, check=False)  # a test that failed left something open
    finally:
        run("losetup", "-d", loop)
