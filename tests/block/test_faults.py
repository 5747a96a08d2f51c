# SPDX-License-Identifier: Apache-2.0
"""A disk that fails, is full or is read-only, up to the guest: it is told what a disk would tell it, keeps what it had, and goes on
once the disk is well again. The errors are the kernel's own, of a loop device whose far end fails."""
import json
import os
import subprocess

import pytest

from conftest import Guest, ask, run

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def serve(blockd, tmp_path):
    """serve(back, *more, name=…): a guest's driver on a new process."""
    guests = []

    def start(back, *more, name="a", engine="auto"):
        b = blockd(back, *more, "--io", engine, "--control", str(tmp_path / "control"), name=name, front=[f"vhost-user:socket={tmp_path}/v.sock"])
        if not guests:
            guests.append(Guest(tmp_path / "v.sock"))
        else:
            assert guests[0]("again") == "ok"
        guests[0].b = b
        return guests[0]

    start.control = tmp_path / "control"
    yield start
    for g in guests:
        g.close()
        assert g.b.stop() == 0


@pytest.fixture
def small(tmp_path):
    """A file system with 16 MiB of room."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    path = tmp_path / "small"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16M", "small", path)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_errors(slow, serve, engine):
    g = serve(f"file:path={slow.file}", engine=engine)
    assert g("write 1048576 65536 1") == "ok" and g("flush") == "ok"
    slow.rule("op=read,error=EIO")
    assert g("read 1048576 65536 1") == "ioerr"
    assert g("write 2097152 65536 2") == "ok" and g("flush") == "ok"
    slow.release()
    assert g("read 1048576 65536 1") == "ok 0" and g("read 2097152 65536 2") == "ok 0"
    slow.rule("op=write,error=EIO")
    assert g("write 3145728 65536 3") == "ioerr"
    assert g("read 1048576 65536 1") == "ok 0"
    slow.release()
    assert g("write 3145728 65536 4") == "ok" and g("flush") == "ok" and g("read 3145728 65536 4") == "ok 0"


def test_a_flush_that_failed_stays_so(slow, serve):
    """What the failed one stood for may be lost: success is not told again before somebody has looked (file_space.c)."""
    g = serve(f"file:path={slow.file}")
    slow.rule("op=flush,error=EIO")
    assert g("write 0 4096 1") == "ok" and g("flush") == "ioerr"
    slow.release()
    assert g("flush") == "ioerr" and g("read 0 4096 1") == "ok 0"
    ask(serve.control, "file", "clear-error")
    assert g("write 0 4096 2") == "ok" and g("flush") == "ok"
    slow.rule("op=flush,error=EIO")
    assert g("write 0 4096 3") == "ok" and g("flush") == "ioerr"
    g.b.kill()
    slow.release()
    g = serve(f"file:path={slow.file}", name="b")
    assert g("flush") == "ok"  # opened anew: the guest sees what there is


def test_errors_behind_the_buffer(slow, serve, tmp_path):
    """Acknowledged data is kept through errors and the process' death; no flush succeeds before it is on the disk."""
    more = ("--filter", f"coalesce:buffer={tmp_path}/buffer,size=2M")
    g = serve(f"file:path={slow.file}", *more)
    assert g("write 0 65536 9") == "ok" and g("flush") == "ok"
    slow.rule("op=write,error=EIO")
    assert g("write 1048576 65536 1") == "ok"
    assert g("flush") == "ioerr" and g("flush") == "ioerr"
    assert g("read 1048576 65536 1") == "ok 0"
    g.b.kill()
    g = serve(f"file:path={slow.file}", *more, name="b")
    assert g("read 1048576 65536 1") == "ok 0" and g("flush") == "ioerr"
    assert g("write 1114112 4096 2") == "ok"
    slow.release()
    assert g("flush") == "ok"
    assert g.b.stop() == 0
    with open(slow.file, "rb") as f:
        f.seek(MIB)
        assert f.read(68 * KIB) == b"\x01" * (64 * KIB) + b"\x02" * (4 * KIB)


def test_a_source_that_fails(slow, serve, tmp_path):
    """A copy's volume goes on where it has its own data; what it lacks fails as long as the source does."""
    disk = tmp_path / "disk"
    with open(disk, "wb") as f:
        f.truncate(32 * MIB)
    with open(slow.file, "r+b") as f:
        f.write(b"\x07" * (4 * MIB))
        os.fsync(f.fileno())
    g = serve(f"file:path={disk}", "--filter", f"cow:source=file:path={slow.file},,read-only=on,map={tmp_path}/map,fill=off")
    assert g("write 0 65536 1") == "ok"
    slow.rule("op=read,error=EIO")
    assert g("read 0 65536 1") == "ok 0" and g("write 65536 65536 2") == "ok"
    assert g("read 1048576 4096 7") == "ioerr" and g("write 1048576 512 3") == "ioerr"
    assert g("flush") == "ok"
    slow.release()
    assert g("read 1048576 4096 7") == "ok 0" and g("write 1048576 512 3") == "ok"
    assert g("read 1049088 65024 7") == "ok 0" and g("flush") == "ok"


def fill_up(g, step=256 * KIB, end=200 * MIB):
    """Writes until that fails: where."""
    for off in range(0, end, step):
        said = g(f"write {off} {step} {off // step % 250 + 1}")
        if said != "ok":
            assert said == "ioerr"
            return off
    raise AssertionError("the disk is never full")


def check_written(g, end, step=256 * KIB):
    for off in range(0, end, step):
        assert g(f"read {off} {step} {off // step % 250 + 1}") == "ok 0", f"at {off}"


@pytest.fixture(params=["ext4", "tmpfs"])
def place(request):
    return request.getfixturevalue("slow").mount if request.param == "ext4" else request.getfixturevalue("small")


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_disk_full(place, serve, engine):
    """A thin volume on a file system without room: new blocks fail, others do not, and room heals it."""
    ballast = place / "ballast"
    ballast.write_bytes(bytes(4 * MIB))
    disk = place / "thin"
    with open(disk, "wb") as f:
        f.truncate(200 * MIB)
    g = serve(f"file:path={disk}" + (",direct=off" if place.name == "small" else ""), engine=engine)
    end = fill_up(g)
    assert 4 * MIB < end < 96 * MIB
    assert g(f"write {150 * MIB} 65536 1") == "ioerr"
    assert g("write 0 262144 1") == "ok" and g("flush") == "ok"  # there is room for it already
    check_written(g, end)
    assert g("discard 0 262144") == "ok" and g("write 0 262144 1") == "ok"
    ballast.unlink()
    assert g(f"write {end} 262144 {end // (256 * KIB) % 250 + 1}") == "ok" and g("flush") == "ok"
    check_written(g, end + 256 * KIB)


def test_disk_full_behind_the_whole_stack(small, serve, tmp_path):
    """What the buffer has acknowledged waits there for room; flushes say that it does. A snapshot without room fails alone."""
    ballast, disk = small / "ballast", small / "thin"
    ballast.write_bytes(bytes(8 * MIB))
    with open(disk, "wb") as f:
        f.truncate(64 * MIB)
    g = serve(f"file:path={disk},direct=off", "--filter", f"coalesce:buffer={tmp_path}/buffer,size=2M", "--filter", "readahead", "--filter",
              f"snap:map={tmp_path}/changes", "--filter", f"cow:source=zero,map={tmp_path}/map,fill=off")
    assert g("write 0 65536 1") == "ok" and g("flush") == "ok"
    assert "space" in ask(serve.control, "snap", "begin", f"name=big,scratch={small}/scratch,scratch-size=32M", ok=False)
    ask(serve.control, "snap", "begin", f"name=one,scratch={tmp_path}/scratch,scratch-size=128k")
    written, full = 0, False
    for off in range(0, 32 * MIB, 64 * KIB):
        said = g(f"write {off} 65536 {off // (64 * KIB) % 250 + 1}")
        assert said in ("ok", "ioerr")
        full |= said == "ioerr" or (off % MIB == 0 and g("flush") == "ioerr")
        if full:
            break
        written = off + 64 * KIB
    assert full and written > 4 * MIB
    assert g("flush") == "ioerr" and g("flush") == "ioerr"
    for off in range(0, written, 64 * KIB):
        assert g(f"read {off} 65536 {off // (64 * KIB) % 250 + 1}") == "ok 0", f"at {off}"
    assert [v["state"] for v in json.loads(ask(serve.control, "snap", "status"))["views"]] == ["failed"]
    ballast.unlink()
    assert g("flush") == "ok"
    for off in range(0, written, 64 * KIB):
        assert g(f"read {off} 65536 {off // (64 * KIB) % 250 + 1}") == "ok 0", f"at {off}"


def test_scratch_full(serve, tmp_path):
    """The view is lost, and the guest notices nothing."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\x05" * (8 * MIB))
    g = serve(f"file:path={disk}", "--filter", f"snap:map={tmp_path}/changes")
    ask(serve.control, "snap", "begin", f"name=one,scratch={tmp_path}/scratch,scratch-size=1M")
    for off in range(0, 8 * MIB, 256 * KIB):
        assert g(f"write {off} 262144 6") == "ok"
    assert g("flush") == "ok" and g("read 0 1048576 6") == "ok 0"
    assert json.loads(ask(serve.control, "snap", "status"))["views"][0]["state"] == "failed"
    ask(serve.control, "snap", "end", "name=one")


def test_read_only(serve, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"\x05" * (8 * MIB))
    g = serve(f"file:path={disk},read-only=on", "--filter", "readahead")
    assert g("about").startswith("read_only=1 ")
    for line in ("write 0 4096 1", "zeroes 0 4096", "discard 0 4096"):
        assert g(line) == "ioerr"
    assert g("read 0 65536 5") == "ok 0" and g("flush") == "ok"
    assert g("read 8388608 4096 5") == "ioerr"  # beyond the end
    assert g.b.stop() == 0
    assert disk.read_bytes() == b"\x05" * (8 * MIB)
