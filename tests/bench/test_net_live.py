# SPDX-License-Identifier: Apache-2.0
"""`mallee bench net` and network volumes with guests; and that the host has none of their links, namespaces, rules and programs
afterwards, in whichever way they ended."""
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from live import bench_words, must, needs_root
from paper import result as results
from paper import undo

pytestmark = needs_root
SHORT = ["--workload", "tcp-to-guest", "--seconds", "1", "--repetitions", "1", "--accel", "tcg"]


@pytest.fixture
def own_record(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLEE_BENCH_RECORD", str(tmp_path / "record.json"))
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))
    return tmp_path / "record.json"


@pytest.fixture
def port():
    """Others' benches may run."""
    return str(20000 + os.getpid() % 10000)


def entries(record):
    """What is to be undone now."""
    return undo.last_state(record.read_text()) if record.exists() else []


def made_by(found):
    """Names of links, namespaces and Mallee's tables, and folders, out of a record's entries."""
    names = set()
    for entry in found:
        words = entry.get("command") or [entry.get("path")]
        if "--uninstall" in words:
            cloud = "b" + next(name for name in names if name.startswith("mb"))[2:7] # net-port's id is that of the links
            names |= {f"mlb{cloud}", f"mallee_{cloud}"}
        else:
            names.add(words[-1])
    return names


def there(names):
    """Those of the names that the host has."""
    links = re.findall(r"^\d+: ([^:@]+)", must("ip", "-o", "link"), re.M)
    namespaces = must("ip", "netns").split()
    tables = must("nft", "list", "tables").split()
    return {name for name in names if name in links + namespaces + tables or (name.startswith("/") and Path(name).exists())}


def programs(names):
    """Command lines that name one of them: QEMU its tap, net-port its folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        lines += [line for name in names if name in line and not line.startswith("/usr/bin/python3")]
    return lines


def start(*words):
    return subprocess.Popen(bench_words(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def guest_runs(record, names):
    """All that one guest on Mallee's network needs is made, and QEMU is on its tap."""
    names |= made_by(entries(record))
    return any("qemu-system" in line for line in programs(taps(names)))


def taps(names):
    """How taps on Mallee's networks begin."""
    return {f"mlt{name[3:7]}" for name in names if name.startswith("mlbb")}


@pytest.mark.timeout(180)
def test_figures_and_a_host_as_before(own_record, tmp_path, port):
    path, names = tmp_path / "result.json", set()
    with start("net", "--configuration", "mallee", "--json", path, "--port", port, *SHORT) as bench:
        while bench.poll() is None:
            names |= made_by(entries(own_record))
            time.sleep(0.05)
        output = bench.stdout.read()
    assert bench.returncode == 0, output
    assert any(name.startswith("mlb") for name in names) and any(name.startswith("mallee-bench-") for name in names)
    assert not there(names) and not entries(own_record)
    result = results.check(json.loads(path.read_text()))
    rows = {(row["configuration"], row["target"]): row for row in result["rows"]}
    assert set(rows) == {(c, t) for c in ("none", "mallee") for t in ("host", "peer")}
    for (configuration, target), row in rows.items():
        assert row["mbit_s"] > 1 and row["why_empty"] is None and row["unreliable"] and len(row["runs"]) == 1, row
        assert 0 < row["cpu_s_per_gb"] < 10000 and 0 < row["ratio"] <= (1 if configuration == "none" else 2)
        assert (row["study"] or {}).get("mbit_s") == (940 if (configuration, target) == ("none", "peer") else None)
    path = rows["mallee", "peer"]["path"]
    assert path["mtu"] == 1500 and path["emulated"] is False and path["vhost"] is False and 0 < path["guest_cpu_percent"] <= 100
    assert "tso" in path["offloads"]
    assert result["foreign"]["others_cores"] >= 0 and result["host"]["accel"] == "tcg"


@pytest.mark.timeout(180)
def test_interrupted(own_record, port):
    names = set()
    with start("net", "--configuration", "mallee", "--port", port, *SHORT) as bench:
        until(lambda: guest_runs(own_record, names) or bench.poll() is not None, "no guest was started")
        assert there(names)
        bench.send_signal(signal.SIGINT)
        output = bench.communicate(timeout=120)[0]
    assert bench.returncode == 130, output
    assert not there(names) and not programs(names | taps(names)) and not entries(own_record)


@pytest.mark.timeout(180)
def test_killed(own_record, port):
    names = set()
    with start("net", "--configuration", "mallee", "--port", port, *SHORT) as bench:
        until(lambda: guest_runs(own_record, names) or bench.poll() is not None, "no guest was started")
        bench.kill()
    until(lambda: not programs(names | taps(names)), "its programs live on", 20)
    # Mallee's network goes with it; the rest when somebody measures again.
    assert not any(name.startswith("mlb") for name in there(names))
    assert any(name.startswith("mallee-bench-") for name in there(names))
    done = subprocess.run(bench_words("net", "--configuration", "none", "--target", "host", "--port", port, *SHORT), check=False, timeout=120,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not there(names) and not entries(own_record)


@pytest.mark.timeout(180)
def test_no_answer_is_a_row_that_says_so(own_record, tmp_path, port):
    path = tmp_path / "result.json"
    done = subprocess.run(bench_words("net", "--configuration", "none", "--target", "peer", "--peer", "127.0.0.2", "--json", path, "--port", port,
                                      *SHORT), check=False, timeout=170, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    row, = json.loads(path.read_text())["rows"]
    assert "127.0.0.2" in row["why_empty"] and "refused" in row["why_empty"] and row.get("mbit_s") is None


def test_asked_wrongly(bench):
    for words in (["--seconds", "0"], ["--repetitions", "0"], ["--configuration", "rtl8139"], ["--minutes", "-1"], ["--seconds", "x"]):
        assert bench("net", *words).returncode == 2, words


@pytest.mark.timeout(110)
def test_small_frames_are_seen(own_record, tmp_path):
    """The guest's own driver, over a cable whose frames hold two sectors: provoked, measured, named."""
    path = tmp_path / "result.json"
    done = subprocess.run(bench_words("disk", "--rows", "net-guest,net-mallee", "--mtu", "1500", "--workloads", "dd-read", "--repetitions", "1",
                                      "--accel", "tcg", "--json", path), check=False, timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["configuration"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["net-guest"]["mb_s"] > 0 and rows["net-guest"]["why_empty"] is None
    assert rows["net-guest"]["path"]["mtu"] == 1500 and rows["net-guest"]["path"]["wire_mb_s"] == 125
    assert "frame-size" in [held["rule"] for held in rows["net-guest"]["held_back_by"]]
    assert "AoE" in rows["net-mallee"]["why_empty"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_card_to_both_hosts(own_record, tmp_path, port):
    """The order of things in the study's Figure 4: the emulated card below the paravirtual ones, and all of them below the host."""
    path = tmp_path / "result.json"
    done = subprocess.run(bench_words("net", "--seconds", "1", "--repetitions", "3", "--port", port, "--json", path), check=False, timeout=380,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {(row["configuration"], row["target"], row["workload"]): row for row in json.loads(path.read_text())["rows"]}
    assert len(rows) == 24 and not any(row["why_empty"] for row in rows.values())
    for target in ("host", "peer"):
        for workload in ("tcp-to-guest", "tcp-from-guest"):
            rate = {c: rows[c, target, workload]["mbit_s"] for c in ("none", "e1000", "virtio-net", "mallee")}
            assert rate["e1000"] < rate["virtio-net"] < rate["none"] and rate["mallee"] < rate["none"], (target, workload, rate)
        assert all(rows[c, target, "request-response"]["transactions_s"] > 10 for c in ("none", "e1000", "virtio-net", "mallee"))


@pytest.fixture
def other_host(tmp_path, port):
    """A host that knows no way to addresses behind this one, with `mallee bench net --serve` on it; its address."""
    name, cable = f"mbtest{os.getpid()}", f"mbt{os.getpid() % 100000}"
    must("ip", "netns", "add", name)
    try:
        must("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        must("ip", "address", "add", "203.0.113.1/30", "dev", cable)
        must("ip", "link", "set", cable, "up")
        for words in (["link", "set", "lo", "up"], ["address", "add", "203.0.113.2/30", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            must("ip", "-n", name, *words)
        with subprocess.Popen(["ip", "netns", "exec", name, *bench_words("net", "--serve", "--listen", "203.0.113.2", "--port", port)],
                              stdout=subprocess.PIPE, text=True) as server:
            while server.stdout.readline().strip() != "ready":
                assert server.poll() is None
            yield "203.0.113.2"
            server.kill()
    finally:
        must("ip", "netns", "delete", name)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_another_host(own_record, other_host, tmp_path, port):
    """Guests reach it from behind this host's address, and forwarding is afterwards as it was."""
    before = {path: path.read_text() for path in Path("/proc/sys/net/ipv4/conf").glob("*/forwarding") if path.parent.name in ("all", "default", "lo")}
    tables, path = must("nft", "list", "tables"), tmp_path / "result.json"
    done = subprocess.run(bench_words("net", "--peer", other_host, "--configuration", "virtio-net", "--configuration", "mallee", "--target", "peer",
                                      "--json", path, "--port", port, *SHORT), check=False, timeout=180, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 3 and all(row["mbit_s"] > 1 for row in rows)
    assert must("nft", "list", "tables") == tables
    assert {path: path.read_text() for path in before} == before
