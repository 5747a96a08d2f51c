# SPDX-License-Identifier: Apache-2.0
"""The NBD server and client with other people's clients and servers: QEMU's, libnbd's, nbdkit's, fio's."""
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
import time

import pytest

from conftest import ask, program, qemu_io, run, tool

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A sparse file of 64 MiB: noise at 1 MiB and at 40 MiB, nothing else."""
    path = tmp_path / "disk.raw"
    with open(path, "wb") as f:
        f.truncate(64 * MIB)
        for at, length in ((1, 8), (40, 3)):
            f.seek(at * MIB)
            f.write(random.Random(at).randbytes(length * MIB))
    return path


def resident_anonymous(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"RssAnon:\s+(\d+) kB", f.read()).group(1)) * 1024


# ---- the server ----

def test_info(blockd, disk):
    info = json.loads(run(tool("nbdinfo"), "--json", blockd(f"file:path={disk}").uri))
    export = info["exports"][0]
    assert info["protocol"] == "newstyle-fixed" and info["structured"]
    assert export["export-size"] == 64 * MIB
    assert export["block_size_minimum"] in (512, 4096) and export["block_size_maximum"] == 32 * MIB
    assert export["can_flush"] and export["can_fua"] and export["can_zero"] and export["can_fast_zero"] and export["can_multi_conn"]
    assert "base:allocation" in export["contexts"]


def test_qemu_io(blockd):
    qemu_io(blockd("mem:size=64M").uri, "write -P 7 0 1M", "read -P 7 0 1M", "write -P 9 5M 20M", "read -P 9 5M 20M", "write -z 6M 2M",
            "read -P 0 6M 2M", "write -z -u 8M 2M", "read -P 0 8M 2M", "discard 0 64k", "write -f -P 3 4k 4k", "flush",
            "read -P 3 4k 4k", "aio_write -P 5 30M 8M", "aio_write -P 6 40M 8M", "aio_flush", "read -P 5 30M 8M", "read -P 6 40M 8M")


def test_copy_and_map(blockd, disk, tmp_path):
    b = blockd(f"file:path={disk}", "--queues", "2")
    copy = tmp_path / "copy"
    run(tool("nbdcopy"), b.uri, copy)
    assert copy.read_bytes() == disk.read_bytes()
    extents = json.loads(run(tool("nbdinfo"), "--map", "--json", b.uri))
    assert sum(e["length"] for e in extents) == 64 * MIB
    data = sum(e["length"] for e in extents if e["type"] == 0)
    assert 11 * MIB <= data < 12 * MIB, extents
    assert b.stop() == 0


def test_write_copy(blockd, disk, tmp_path):
    target = tmp_path / "target.raw"
    with open(target, "wb") as f:
        f.truncate(64 * MIB)
    b = blockd(f"file:path={target}", "--queues", "2")
    run(tool("nbdcopy"), disk, b.uri)
    assert b.stop() == 0
    assert target.read_bytes() == disk.read_bytes()


def test_convert_by_qemu_img(blockd, disk, tmp_path):
    b = blockd("mem:size=64M")
    run(tool("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", disk, b.uri)
    assert "identical" in run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", disk, b.uri)


def test_read_only(blockd, disk, tmp_path):
    b = blockd(f"file:path={disk}", front=[f"nbd:socket={tmp_path}/a.sock,read-only=on"])
    assert json.loads(run(tool("nbdinfo"), "--json", b.uri))["exports"][0]["is_read_only"]
    assert re.search("read-only|denied|not permitted", qemu_io(b.uri, "write 0 4k", ok=False), re.I)
    run(tool("nbdcopy"), b.uri, "null:")


def test_unknown_export(blockd, disk):
    b = blockd(f"file:path={disk}")
    assert "for export: other" in run(tool("nbdinfo"), f"nbd+unix:///other?socket={b.socket}", ok=False)


def test_tcp(blockd, disk, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    blockd(f"file:path={disk}", front=[f"nbd:address=127.0.0.1,port={port}"])
    run(tool("nbdcopy"), f"nbd://127.0.0.1:{port}/", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()


def test_fio_verifies(blockd, tmp_path):
    b = blockd("mem:size=64M", "--queues", "2")
    fio = tool("fio")
    if "nbd" not in run(fio, "--enghelp"):
        pytest.skip("fio has no NBD engine")
    run(fio, f"--aux-path={tmp_path}", "--name=v", "--ioengine=nbd", f"--uri={b.uri}", "--rw=randrw", "--bsrange=4k-1m", "--iodepth=32", "--size=64m", "--io_size=192m",
        "--verify=crc32c", "--verify_fatal=1", "--fsync=64", timeout=100)


def test_idle_memory(blockd, disk, tmp_path):
    """After load an idle volume keeps less than 4 MB of its own."""
    b = blockd(f"file:path={disk}")
    client = subprocess.Popen([tool("qemu-io"), "-f", "raw", b.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for command, said in (("read 0 32M", "read 33554432/"), ("read 32M 32M", "read 33554432/"), ("write -P 1 0 16M", "wrote 16777216/")):
            client.stdin.write(command + "\n")  # one by one: of lines that come together it may run but the first
            client.stdin.flush()
            assert any(said in line for line in iter(client.stdout.readline, "")), command
        b.wait_for(lambda: resident_anonymous(b.pid) < 4 * MIB, "memory given back")
    finally:
        client.communicate("quit\n", timeout=20)


def test_garbage_does_no_harm(blockd, disk):
    b = blockd(f"file:path={disk}")
    for seed in range(40):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(b.socket))
            try:
                s.sendall(random.Random(seed).randbytes(3000))
                s.recv(100)
            except OSError:
                pass
    run(tool("nbdinfo"), b.uri)


def greeting(path, uid):
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{path}'); print(len(s.recv(18)))"
    return run(tool("setpriv"), f"--reuid={uid}", "--clear-groups", "/usr/bin/python3", "-c", script, ok=False)


def test_other_users_stay_outside(blockd, disk, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    # Not pytest's own folder: that is closed to others.
    with tempfile.TemporaryDirectory(prefix="mallee-nbd-") as folder:
        os.chmod(folder, 0o755)
        b = blockd(f"file:path={disk}", front=[f"nbd:socket={folder}/s,mode=0666,peer-uid=12345"])
        assert greeting(f"{folder}/s", 12345).strip() == "18"
        assert greeting(f"{folder}/s", 12346).strip() != "18"
        b.wait_for(lambda: "refused" in b.text(), "refusal in the log")
        b.stop()


def test_owners_of_files_may_connect(blockd, disk, tmp_path):
    """What the storage controller's exports go by: a link to a file of each volume, whose owner changes while it is open."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    with tempfile.TemporaryDirectory(prefix="mallee-nbd-") as folder:
        os.chmod(folder, 0o755)
        peers, file = Path(folder) / "peers", Path(folder) / "file"
        peers.mkdir(mode=0o700)
        file.touch()
        (peers / "vol-1").symlink_to(file)
        (peers / "vol-2").symlink_to(file.with_name("gone"))
        b = blockd(f"file:path={disk}", front=[f"nbd:socket={folder}/s,mode=0666,peer-owners={peers}"])
        assert greeting(f"{folder}/s", 12345).strip() != "18"
        os.chown(file, 12345, 12345)
        assert greeting(f"{folder}/s", 12345).strip() == "18"
        assert greeting(f"{folder}/s", 12346).strip() != "18"
        (peers / "vol-1").unlink()
        assert greeting(f"{folder}/s", 12345).strip() != "18"
        b.stop()


def test_exclusive(blockd, disk, tmp_path):
    b = blockd(f"file:path={disk}", front=[f"nbd:socket={tmp_path}/a.sock,exclusive=on"])
    first = subprocess.Popen([tool("qemu-io"), "-f", "raw", b.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    b.wait_for(lambda: "admitted" in b.text(), "first connection")
    qemu_io(b.uri, "read 0 4k")
    first.kill()
    first.wait()
    assert not json.loads(run(tool("nbdinfo"), "--json", b.uri))["exports"][0]["can_multi_conn"]


def test_sent_without_a_copy(blockd, tmp_path):
    """What the page cache has goes to the socket out of it, and its readers get what is there, also after it was written, grew and left
    the cache."""
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(5).randbytes(16 * MIB))
    b = blockd(f"file:path={path},direct=off", "--filter", "throttle", "--control", str(tmp_path / "control"))
    copy = tmp_path / "copy"

    def lent():
        return json.loads(ask(tmp_path / "control", "stats"))["layers"]["nbd"]["lent_bytes"]

    run(tool("nbdcopy"), b.uri, copy)
    assert copy.read_bytes() == path.read_bytes()
    assert lent() >= 15 * MIB
    qemu_io(b.uri, "write -P 7 1M 3M", "read -P 7 1M 3M", "write -z 2M 1M", "read -P 0 2M 1M", "read -P 7 3M 1M")
    ask(tmp_path / "control", "resize", str(32 * MIB))
    qemu_io(b.uri, "write -P 9 20M 8M", "read -P 9 20M 8M")
    run("sync", path)
    with open(path, "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    run(tool("nbdcopy"), b.uri, copy)
    assert copy.read_bytes() == path.read_bytes()


def test_a_frozen_view_is_never_lent(blockd, tmp_path):
    """It is as it was, whatever is written while it is read."""
    path = tmp_path / "disk.raw"
    was = random.Random(6).randbytes(16 * MIB)
    path.write_bytes(was)
    control = tmp_path / "control"
    b = blockd(f"file:path={path},direct=off", "--filter", f"snap:map={tmp_path}/changes", "--control", str(control))
    ask(control, "snap", "begin", f"name=one,scratch={tmp_path}/scratch,scratch-size=32M")
    copy = tmp_path / "copy"
    with subprocess.Popen([tool("nbdcopy"), b.uri.replace("///", "///snap/one"), copy]) as reader:
        qemu_io(b.uri, *[f"write -P {at + 1} {at}M 1M" for at in range(16)])
        assert reader.wait(60) == 0
    assert copy.read_bytes() == was
    assert json.loads(ask(control, "stats"))["layers"]["nbd"]["lent_bytes"] == 0


def test_frozen_view(blockd, disk, tmp_path):
    """A view of the snap filter is an export of its own: as it was, read-only, and says what changed."""
    control = tmp_path / "control"
    b = blockd(f"file:path={disk}", "--filter", f"snap:map={tmp_path}/map", "--control", str(control))
    before = disk.read_bytes()
    run(program(), "--to", control, "snap", "begin", f"name=v,scratch={tmp_path}/scratch,scratch-size=16M")
    qemu_io(b.uri, "write -P 9 0 2M", "write -P 9 40M 1M", "write -P 9 20M 512k", "flush")
    view = f"nbd+unix:///snap/v?socket={b.socket}"
    export = json.loads(run(tool("nbdinfo"), "--json", view))["exports"][0]
    assert export["is_read_only"] and "mallee:changed" in export["contexts"]
    changed = json.loads(run(tool("nbdinfo"), "--map=mallee:changed", "--json", view))
    assert sum(e["length"] for e in changed) == 64 * MIB
    run(tool("nbdcopy"), view, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == before
    qemu_io(b.uri, "read -P 9 0 2M", "read -P 9 40M 1M")
    run(program(), "--to", control, "snap", "end", "name=v")
    assert "for export: snap/v" in run(tool("nbdinfo"), view, ok=False)


def certificates(folder):
    """A cloud's authority, a storage controller's identity and a node's, the latter also as libnbd and QEMU name the files."""
    openssl = tool("openssl")
    folder.mkdir()

    def issue(name, subject, extensions, signer):
        key, request, certificate = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        run(openssl, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        run(openssl, "req", "-new", "-key", key, "-subj", subject, "-out", request)
        (folder / "ext").write_text(extensions)
        sign = ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"] if signer else ["-signkey", key]
        run(openssl, "x509", "-req", "-in", request, "-days", "2", "-sha256", "-extfile", folder / "ext", "-out", certificate, *sign)

    issue("ca", "/CN=authority/O=mallee ab12", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n", False)
    for role in ("sc", "nc"):
        issue(role, f"/CN={role}-1/OU={role}/O=mallee ab12",
              "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
              "subjectAltName=DNS:localhost\n", True)
    for ours, theirs in (("ca.crt", "ca-cert.pem"), ("nc.crt", "client-cert.pem"), ("nc.key", "client-key.pem")):
        shutil.copy(folder / ours, folder / theirs)
    return folder


def test_tls_with_other_clients(blockd, disk, tmp_path):
    certs = certificates(tmp_path / "certs")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    b = blockd(f"file:path={disk}", front=[f"nbd:address=127.0.0.1,port={port},tls=require,tls-dir={certs},tls-peer=nc"])
    run(tool("nbdcopy"), f"nbds://localhost:{port}/?tls-certificates={certs}", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()
    output = run(tool("qemu-io"), "--object", f"tls-creds-x509,id=t,endpoint=client,dir={certs}", "--image-opts",
                 f"driver=nbd,host=localhost,port={port},tls-creds=t", "-c", "write -P 4 1M 3M", "-c", "read -P 4 1M 3M")
    assert "failed" not in output, output
    assert "TLS" in run(tool("nbdinfo"), f"nbd://localhost:{port}/", ok=False)
    # The storage controller's own certificate is none of a node's.
    for suffix in ("cert", "key"):
        shutil.copy(certs / f"sc.{'crt' if suffix == 'cert' else 'key'}", certs / f"client-{suffix}.pem")
    run(tool("nbdcopy"), f"nbds://localhost:{port}/?tls-certificates={certs}", "null:", ok=False)
    assert "refused: its certificate" in b.text()


# ---- the client ----

def other_server(kind, path, where):
    if kind == "qemu-nbd":
        command = [tool("qemu-nbd"), "-f", "raw", "-t", "-e", "8", "-k", where, path]
    else:
        command = [tool("nbdkit"), "-f", "-U", where, "file", path]
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not os.path.exists(where):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("kind", ["qemu-nbd", "nbdkit"])
def test_client_of_other_servers(blockd, disk, tmp_path, kind):
    where = tmp_path / "other.sock"
    server = other_server(kind, disk, where)
    try:
        b = blockd(f"nbd:socket={where},connections=2", "--queues", "2")
        run(tool("nbdcopy"), b.uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == disk.read_bytes()
        data = sum(e["length"] for e in json.loads(run(tool("nbdinfo"), "--map", "--json", b.uri)) if e["type"] == 0)
        assert data <= 64 * MIB
        qemu_io(b.uri, "write -P 7 0 1M", "write -z 8M 1M", "discard 10M 1M", "write -f -P 8 20M 4k", "flush", "read -P 7 0 1M",
                "read -P 0 8M 1M", "read -P 8 20M 4k")
        assert b.stop() == 0
    finally:
        server.terminate()
        server.wait(20)
    with open(disk, "rb") as f:
        assert f.read(MIB) == b"\x07" * MIB


def test_client_survives_its_server(blockd, disk, tmp_path):
    """The server is killed while requests run, and comes back: the client of the client notices nothing."""
    def server():
        return blockd(f"file:path={disk}", name="far", front=[f"nbd:socket={tmp_path}/far.sock,exclusive=on"])

    far = server()
    b = blockd(f"nbd:socket={tmp_path}/far.sock,reconnect-ms=20")
    fio = subprocess.Popen([tool("fio"), f"--aux-path={tmp_path}", "--name=v", "--ioengine=nbd", f"--uri={b.uri}", "--rw=randwrite", "--bs=16k", "--iodepth=16",
                            "--size=64m", "--io_size=256m", "--rate=64m", "--verify=crc32c", "--verify_fatal=1"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(4):
        time.sleep(0.7)
        far.kill()
        far = server()
    output, _ = fio.communicate(timeout=90)
    assert fio.returncode == 0, output


def test_client_gives_up_when_told(blockd, disk, tmp_path):
    far = blockd(f"file:path={disk}", name="far")
    b = blockd(f"nbd:socket={far.socket},reconnect=1,reconnect-ms=50")
    qemu_io(b.uri, "read 0 4k")
    far.kill()
    start = time.monotonic()
    assert "rror" in qemu_io(b.uri, "read 0 4k", ok=False)
    assert time.monotonic() - start < 10
    b.kill()  # its last flush fails, as it should
