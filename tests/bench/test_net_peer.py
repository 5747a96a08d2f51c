# SPDX-License-Identifier: Apache-2.0
"""net-peer, both ends: what it measures, and that its server outlives clients that speak nonsense or go away."""
import contextlib
import json
import socket
import struct
import subprocess

import pytest
from live import BUILD

PEER = BUILD / "bench" / "net-peer"
TO, FROM, RR = 1, 2, 3


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with subprocess.Popen([PEER, "--serve", "--listen", "127.0.0.1", "--port", str(free)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"
        yield free
        assert server.poll() is None
        server.kill()


def client(port, *words):
    done = subprocess.run([PEER, "--connect", "127.0.0.1", "--port", str(port), *words], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def order(magic=0x6d6e7031, version=1, kind=FROM, reserved=0, request=1, answer=1, ms=100):
    return struct.pack(">IBBHIII", magic, version, kind, reserved, request, answer, ms)


@pytest.mark.parametrize("direction", ["--to", "--from"])
def test_stream(port, direction):
    said = client(port, direction, "--seconds", "0.3")
    assert 0.3 <= said["seconds"] < 5
    assert said["bytes"] > 1 << 20
    assert said["mbit_s"] == pytest.approx(said["bytes"] * 8 / said["seconds"] / 1e6, rel=0.01)
    assert said["transactions"] == 0 and said["cpu_s"] > 0


@pytest.mark.parametrize("request_bytes, answer_bytes", [(1, 1), (1000, 1), (1, 70000), (1 << 20, 1 << 20)])
def test_requests(port, request_bytes, answer_bytes):
    said = client(port, "--rr", "--seconds", "0.2", "--request", str(request_bytes), "--answer", str(answer_bytes))
    assert said["transactions"] > 0
    assert said["bytes"] == said["transactions"] * (request_bytes + answer_bytes)
    assert said["transactions_s"] == pytest.approx(said["transactions"] / said["seconds"], rel=0.01)


@pytest.mark.parametrize("wrong", [
    order(magic=1), order(version=2), order(kind=0), order(kind=4), order(reserved=1), order(ms=0), order(ms=3600001),
    order(kind=RR, request=0), order(kind=RR, answer=0), order(kind=RR, request=(1 << 20) + 1), order(kind=RR, answer=0xffffffff),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", order()[:7],
])
def test_nonsense_is_hung_up_on(port, wrong):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(wrong)
        with contextlib.suppress(OSError): # a reset: it had not read all of it
            s.shutdown(socket.SHUT_WR)
            assert s.recv(1) == b""
    assert client(port, "--rr", "--seconds", "0.1")["transactions"] > 0


def test_clients_that_go_away(port):
    for said in (b"", order(kind=FROM, ms=60000), order(kind=RR, request=100) + b"x" * 150, order(kind=TO) + b"y" * 5000):
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(said)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)) # a reset
    assert client(port, "--to", "--seconds", "0.1")["bytes"] > 0


def test_stream_is_zeros_for_as_long_as_ordered(port):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(order(kind=FROM, ms=50))
        total = 0
        while data := s.recv(1 << 16):
            assert not any(data[:64])
            total += len(data)
    assert total % (128 * 1024) == 0 and total


def test_server_counts(port):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(order(kind=TO) + b"z" * 12345)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(8) == struct.pack(">Q", 12345)


@pytest.mark.parametrize("words", [
    [], ["--serve", "--connect", "127.0.0.1"], ["--connect", "127.0.0.1"], ["--connect", "127.0.0.1", "--rr", "--seconds", "0"],
    ["--connect", "127.0.0.1", "--rr", "--request", "0"], ["--serve", "--port", "65536"], ["--serve", "more"], ["--nonsense"],
])
def test_asked_wrongly(words):
    done = subprocess.run([PEER, *words], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 64 and "usage:" in done.stderr


def test_nobody_there():
    done = subprocess.run([PEER, "--connect", "127.0.0.1", "--port", "1", "--to"], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1 and "refused" in done.stderr
    done = subprocess.run([PEER, "--connect", "a.name", "--to"], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1 and "Invalid argument" in done.stderr


def test_offloads():
    done = subprocess.run([PEER, "--offloads", "lo"], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) <= {"rx-checksum", "tx-checksum", "scatter-gather", "tso", "gso", "gro"}
    assert subprocess.run([PEER, "--offloads", "nosuch0"], capture_output=True, check=False).returncode == 1
