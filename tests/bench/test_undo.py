# SPDX-License-Identifier: Apache-2.0
"""A bench that is interrupted, or killed, leaves the machine as it was."""
import contextlib
import os
import signal
import subprocess
import time

import pytest
from live import bench_words, must, needs_root, ours
from paper import undo
from servers import CannotMeasure

NAMES = ("dirty_bytes", "dirty_ratio", "dirty_background_bytes", "dirty_background_ratio")


def settings():
    return {name: (undo.VM / name).read_text().strip() for name in NAMES}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """One of its own: a bench of this machine's user may be running."""
    monkeypatch.setenv("MALLEE_BENCH_RECORD", str(tmp_path / "record.json"))
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path / "record.json"
    with undo.Undo(tmp_path / "record.json"): # what a test left that failed
        pass


@pytest.fixture
def restored():
    """Whatever goes wrong in a test, the host keeps its settings."""
    before = settings()
    yield before
    for name, value in settings().items():
        if value != before[name] and before[name] != "0":
            (undo.VM / name).write_text(before[name])


@contextlib.contextmanager
def started(*more):
    """A bench in the middle of a run; it does not outlive its test."""
    process = subprocess.Popen(bench_words("disk", "--rows", "none", "--workloads", "dd-write", "--accel", "tcg", *more),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert any("MB/s" in line for line in process.stderr), f"it ended with {process.wait()}"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def leftovers(folder):
    """Loop devices and folders of a bench that works in this one."""
    return ours(folder) + [path.name for path in folder.glob("mallee-bench-*")]


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_restores_the_machine(record, restored, number):
    with started("--repetitions", "50") as process:
        assert settings() != restored
        assert leftovers(record.parent)
        process.send_signal(number)
        process.wait(30)
    assert process.returncode == 128 + number
    assert settings() == restored
    assert leftovers(record.parent) == []
    assert record.read_text() == ""


@needs_root
def test_next_start_tidies_up_after_a_killed_run(record, restored):
    with started("--repetitions", "50") as process:
        process.kill()
    assert settings() != restored
    assert leftovers(record.parent)
    undone = subprocess.run(bench_words("disk", "--rows", "none", "--workloads", "direct-read", "--repetitions", "1", "--accel", "tcg"),
                            capture_output=True, text=True, timeout=60, check=False)
    assert undone.returncode == 0, undone.stderr
    assert settings() == restored
    assert leftovers(record.parent) == []


@needs_root
def test_programs_end_with_a_killed_bench(record, restored):
    with started("--repetitions", "50") as process:
        children = must("pgrep", "--session", str(process.pid)).split() + must("pgrep", "--parent", str(process.pid)).split()
        assert len(set(children)) > 1
        process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}/exe") for pid in children):
        time.sleep(0.1)
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}/exe")]
    with undo.Undo(record):
        pass
    assert settings() == restored


def test_changes_are_undone_in_reverse(tmp_path):
    inner = tmp_path / "a" / "b"
    with undo.Undo(tmp_path / "record") as changes:
        changes.add("file", path=str(tmp_path / "a"))
        inner.mkdir(parents=True)
        changes.add("file", path=str(inner))
        assert "a/b" in (tmp_path / "record").read_text()
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "record").read_text() == ""


def test_one_change_is_undone_early(tmp_path):
    with undo.Undo(tmp_path / "record") as changes:
        entry = changes.add("file", path=str(tmp_path / "a"))
        (tmp_path / "a").mkdir()
        changes.drop(entry)
        assert not (tmp_path / "a").exists()
        assert changes.entries == []


def test_a_torn_record_does_not_hide_what_was_written_before(tmp_path):
    left = tmp_path / "left"
    left.mkdir()
    entry = '{"kind": "file", "path": "%s"}' % left
    (tmp_path / "record").write_text(f"[{entry}]\n[{entry}, {{\"ki")
    with undo.Undo(tmp_path / "record"):
        assert not left.exists()


def test_two_benches_do_not_run_at_once(tmp_path):
    with undo.Undo(tmp_path / "record"):
        with pytest.raises(CannotMeasure, match="another mallee bench"):
            with undo.Undo(tmp_path / "record"):
                pass


def test_loop_of_others_is_left_alone(tmp_path):
    """The number may have been given to somebody else since."""
    undo.UNDO["loop"]({"device": "/dev/loop0", "file": str(tmp_path / "never")})
