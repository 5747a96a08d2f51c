# SPDX-License-Identifier: Apache-2.0
"""tests/lib: what the other tests stand on."""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lib import cloud, processes


def start(state, tmp_path):
    return subprocess.Popen(["sleep", "100"], env={"MALLEE_STATE": str(state)}, cwd=tmp_path)


def test_only_processes_of_the_cloud_are_ended(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "mine-not"
    a, b = start(mine / "x", tmp_path), start(other, tmp_path)
    try:
        assert processes.below(mine) == [a.pid]
        told = processes.sweep(mine)
        assert told == [f"sleep ({a.pid})"]
        assert a.wait(5) == -signal.SIGTERM
        assert b.poll() is None
    finally:
        for p in (a, b):
            p.kill()
            p.wait()


def test_what_ignores_sigterm_is_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(100)"
    p = subprocess.Popen([sys.executable, "-c", code], env={"MALLEE_STATE": str(tmp_path)}, stdout=subprocess.PIPE)
    p.stdout.readline()
    processes.sweep(tmp_path, grace_s=0.5)
    assert p.wait(5) == -signal.SIGKILL


def test_ports_in_use_are_seen():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        assert not cloud.ports_are_free(port - 5)
    base = cloud.free_port_base()
    assert base % 20 == 0 and 10000 <= base < 32000


def test_exports():
    assert cloud.parse_exports("export A=1\nexport B='two words' C=3\nunset D\n# E=5\nexport F='it'\\''s'\n") == {
        "A": "1", "B": "two words", "C": "3", "F": "it's"}


@pytest.mark.parametrize("line, crash", [
    ("==12==ERROR: AddressSanitizer: heap-use-after-free", True),
    ("==12==ERROR: LeakSanitizer: detected memory leaks", True),
    ("x.c:1:2: runtime error: signed integer overflow", True),
    ('ts=x level=warn svc=supervisor msg="service was killed" unit=nc pid=1 signal=11', True),
    ('ts=x level=warn svc=supervisor msg="service was killed" unit=nc pid=1 signal=6', True),
    ('ts=x level=warn svc=supervisor msg="service was killed" unit=nc pid=1 signal=9', False),
    ('ts=x level=warn svc=supervisor msg="service was killed" unit=nc pid=1 signal=15', False),
])
def test_crashes_are_read_out_of_logs(line, crash):
    assert bool(cloud.CRASH.search(line)) == crash


def test_the_caller_does_not_decide(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("MALLEE_STATE", "/var/lib/mallee")
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    c = cloud.Cloud("fake", root=tmp_path)
    assert c.env["MALLEE_STATE"] == str(c.state) and Path(c.state).parent == tmp_path
    assert not {"AWS_PROFILE", "https_proxy", "PYTHONPATH"} & set(c.env)
    assert c.pid("clc") == 0
    (c.state / "run").mkdir()
    (c.state / "run" / "clc.pid").write_text(f"{os.getpid()}\n")  # a stale file: somebody else's pid by now
    assert c.pid("clc") == 0
    with pytest.raises(AssertionError):
        c.kill("clc")
