# SPDX-License-Identifier: Apache-2.0
"""The daemons as an operator sees them: health, metrics, where they listen, and that they come back when killed."""
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from lib.cloud import DAEMONS, PORTS, wait_for

LOOPBACK = "0100007F"  # 127.0.0.1 in /proc/net/tcp
METRIC = re.compile(r'^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?\d+(\.\d+)?$')


@pytest.mark.parametrize("daemon", DAEMONS)
def test_healthz(cloud, daemon):
    status, body = cloud.get(cloud.port("ops-" + daemon), "/healthz")
    assert (status, body.strip()) == (200, "ok")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_metrics_are_prometheus_text(cloud, daemon):
    status, body = cloud.get(cloud.port("ops-" + daemon), "/metrics")
    assert status == 200
    lines = body.splitlines()
    values = [line for line in lines if not line.startswith("#")]
    assert values
    for line in values:
        assert METRIC.match(line), line
        family = re.split(r"[{ ]", line)[0]
        assert any(head.startswith(f"# TYPE {family} ") for head in lines), family
        assert any(head.startswith(f"# HELP {family} ") for head in lines), family


@pytest.mark.parametrize("daemon", DAEMONS)
def test_operators_listener_serves_nothing_else(cloud, daemon):
    port = cloud.port("ops-" + daemon)
    assert cloud.get(port, "/")[0] == 404
    assert cloud.get(port, "/healthz/x")[0] == 404
    assert cloud.get(port, "/../../etc/passwd")[0] == 404


def listeners(port):
    """Local addresses (hexadecimal, as the kernel prints them) that listen on a port."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, _, hex_port = fields[1].partition(":")
            if fields[3] == "0A" and int(hex_port, 16) == port:
                found.append(address)
    return found


@pytest.mark.parametrize("name", sorted(set(PORTS) - {"metadata"}))
def test_listens_on_loopback_only(cloud, name):
    assert listeners(cloud.port(name)) == [LOOPBACK]


@pytest.mark.parametrize("name", ["clc", "cc", "nc", "walrus"])
def test_internal_ports_speak_tls_to_known_peers_only(cloud, name):
    # Plain HTTP, then silence: neither is answered with a page, and the daemon stays well.
    with socket.create_connection(("127.0.0.1", cloud.port(name)), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            reply = s.recv(100)
        except ConnectionResetError:
            reply = b""
    assert not reply.startswith(b"HTTP/")
    assert cloud.healthy(name)


def test_status_says_well(cloud):
    done = cloud.run("status")
    for daemon in DAEMONS:
        assert re.search(rf"\b{daemon}\b", done.stdout), done.stdout


def test_logs_are_logfmt(cloud):
    for daemon in DAEMONS:
        lines = (cloud.state / "log" / f"{daemon}.log").read_text().splitlines()
        assert lines, daemon
        for line in lines:
            assert re.match(r"ts=\S+Z level=(debug|info|warn|error) svc=\S+ msg=\"", line), f"{daemon}: {line}"


def test_settings_are_kept_for_later_commands(cloud):
    conf = cloud.state / "mallee.conf"
    assert conf.stat().st_mode & 0o777 == 0o644
    assert f"port_base = {cloud.port_base}" in conf.read_text().splitlines()
    bare = {k: v for k, v in cloud.env.items() if k != "MALLEE_PORT_BASE" and k != "MALLEE_HYPERVISOR"}
    whole, cloud.env = cloud.env, bare
    try:
        cloud.run("status")
    finally:
        cloud.env = whole


def test_up_again_changes_nothing(cloud):
    before = {name: cloud.pid(name) for name in DAEMONS}
    assert all(before.values()), before
    cloud.run("up", "--no-instance")
    assert {name: cloud.pid(name) for name in DAEMONS} == before


@pytest.mark.timeout(180)
@pytest.mark.parametrize("daemon", DAEMONS)
def test_killed_daemon_comes_back_with_its_state(cloud, ec2, s3, daemon):
    bucket, key = f"kept-over-{daemon}", f"kept-over-{daemon}"
    ec2.create_key_pair(KeyName=key)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a", Body=b"kept")
    others = {name: cloud.pid(name) for name in DAEMONS if name != daemon}
    try:
        cloud.wait_restarted(daemon, cloud.kill(daemon))
        assert {name: cloud.pid(name) for name in others} == others  # it alone
        pairs = ec2.describe_key_pairs(KeyNames=[key])["KeyPairs"]
        assert [p["KeyName"] for p in pairs] == [key]
        assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"
        cloud.wait_healthy()
    finally:
        cloud.wait_healthy()
        ec2.delete_key_pair(KeyName=key)
        s3.delete_object(Bucket=bucket, Key="a")
        s3.delete_bucket(Bucket=bucket)


@pytest.mark.timeout(180)
def test_killed_supervisor_leaves_the_daemons_and_up_mends_it(cloud):
    before = {name: cloud.pid(name) for name in DAEMONS}
    old = cloud.kill("supervisor")
    time.sleep(0.5)
    assert {name: cloud.pid(name) for name in DAEMONS} == before
    cloud.run("up", "--no-instance")
    wait_for("another supervisor", lambda: cloud.pid("supervisor") not in (0, old))
    cloud.wait_healthy()
    pid = cloud.kill("cc")
    cloud.wait_restarted("cc", pid)


def test_stopped_daemon_that_ends_by_itself_is_started_too(cloud):
    pid = cloud.kill("cc", signal.SIGTERM)
    cloud.wait_restarted("cc", pid)
