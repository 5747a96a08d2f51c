# SPDX-License-Identifier: Apache-2.0
"""mallee-blockd's command line and control socket."""
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import ask, program

MIB = 1 << 20


@pytest.fixture
def control(blockd, tmp_path):
    path = tmp_path / "control.sock"
    blockd(f"mem:size={64 * MIB}", "--filter", "throttle:iops=100000", "--name", "vol-1", "--control", str(path))
    return path


def raw(path, *lines):
    """The answers to these lines, sent in one go."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(str(path))
        s.sendall(b"".join(lines))
        s.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: s.recv(65536), b"")).decode().splitlines()
        except ConnectionResetError:  # hung up on, with more of ours unread
            return []


def test_info_and_counters(control):
    info = json.loads(ask(control, "info"))
    assert (info["name"], info["size_bytes"], info["block_bytes"]) == ("vol-1", 64 * MIB, 512)
    stats = json.loads(ask(control, "stats"))
    assert set(stats) >= {"guest", "disk", "layers"} and "throttle" in stats["layers"]
    counters = json.loads(ask(control, "counters"))
    assert counters.keys() == stats.keys() and counters["layers"].keys() == stats["layers"].keys()
    assert counters["guest"].keys() == {name for name in stats["guest"] if not name.endswith("_log2")}
    metrics = ask(control, "metrics")
    assert 'mallee_block_ops_total{volume="vol-1",point="guest",op="read"} ' in metrics
    families = re.findall(r"^# TYPE (\S+) ", metrics, re.M)
    assert len(families) == len(set(families)) > 10
    for line in metrics.splitlines():
        assert line.startswith("#") or re.fullmatch(r'[a-z_0-9]+(\{.*\})? -?[0-9.e+]+', line), line


def test_commands(control):
    assert any(line.startswith("resize") for line in json.loads(ask(control, "help")))
    assert json.loads(ask(control, "flush")) == {}
    assert "no command" in ask(control, "dance", ok=False)
    assert "no such layer" in ask(control, "coalesce", "drain", ok=False)
    assert "no such verb" in ask(control, "throttle", "dance", ok=False)
    assert "only grows" in ask(control, "resize", str(MIB), ok=False)
    ask(control, "throttle", "set", "iops=5")
    assert "colour" in ask(control, "throttle", "set", "colour=red", ok=False)


def test_many_lines_and_nonsense(control):
    answers = [json.loads(line) for line in raw(control, b"info\ninfo\n\n", b"\xff\xfe\n", b"info\n")]
    assert [a["ok"] for a in answers] == [True, True, False, False, True]
    assert raw(control, b"x" * 100000) == []
    assert raw(control, b"info") == []  # no line
    assert json.loads(ask(control, "info"))["name"] == "vol-1"


def test_the_guests_user_gives_no_commands(blockd, tmp_path):
    """A process under --user may be a guest's QEMU, too."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tmp_path / "run"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path.owner() == "root" and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    os.chown(folder, 12345, 12345)
    blockd("mem:size=1M", "--user", "12345:12345", "--control", str(folder / "c"), front=[])
    assert json.loads(ask(folder / "c", "info"))["size_bytes"] == MIB
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{folder}/c'); s.sendall(b'info\\n'); print(s.recv(99))"
    done = subprocess.run(["/usr/bin/setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "/usr/bin/python3", "-c", script],
                          capture_output=True, text=True, check=False, timeout=60)
    assert "size_bytes" not in done.stdout
    assert done.stdout.strip() == "b''" or "ConnectionResetError" in done.stderr or "BrokenPipe" in done.stderr, done.stderr


@pytest.mark.parametrize("arguments, said", [
    ((), "--back is missing"),
    (("--back", "mem:size=1M"), "nobody could reach"),
    (("--back", "tape:size=1M", "--control", "x"), 'no back end "tape"'),
    (("--back", "mem:size=1M", "--filter", "cow", "--filter", "throttle", "--control", "x"), "order is fixed"),
    (("--back", "mem:size=1M", "--filter", "throttle", "--filter", "throttle", "--control", "x"), "order is fixed"),
    (("--back", "mem:size=1M", "--front", "carrier-pigeon", "--control", "x"), "no front end"),
    (("--back", "mem:size=1M", "--queues", "17", "--control", "x"), "give 1 to 16"),
    (("--back",), "needs a value"),
    (("--colour", "red"), "no option --colour"),
])
def test_what_is_refused(arguments, said, tmp_path):
    done = subprocess.run([program(), *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode in (1, 2) and said in done.stderr.replace('\\"', '"')


@pytest.mark.parametrize("arguments", [
    ("--control", "{mine}"),
    ("--front", "nbd:socket={mine}"),
    ("--front", "vhost-user:socket={mine}"),
    ("--control", "{mine}.sock", "--filter", "cow:source=zero,map={mine}"),
    ("--control", "{mine}.sock", "--filter", "snap:map={mine}"),
])
def test_a_file_named_by_mistake_stays(arguments, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("of great worth")
    done = subprocess.run([program(), "--back", "mem:size=1M", *(a.format(mine=mine) for a in arguments)], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 1 and str(mine) in done.stderr
    assert mine.read_text() == "of great worth"


def test_manual_page_is_whole(tmp_path):
    """Every driver and option of --help is in the page, and no mark was left."""
    page = Path(program()).resolve().with_name("mallee-blockd.8").read_text()
    said = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True).stdout
    assert "@DRIVERS@" not in page and "@VERBS@" not in page
    for option in re.findall(r"^    ([a-z-]+)=", said, re.M):
        assert f".It Cm {option} Ns" in page
    for kind in ("back", "filter", "front"):
        assert re.search(rf"^  --{kind} [a-z]", said, re.M)
