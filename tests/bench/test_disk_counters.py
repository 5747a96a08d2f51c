# SPDX-License-Identifier: Apache-2.0
"""The columns are iostat's: compared with iostat itself, run beside on a busy modelled disk."""
import json
import subprocess
import time

import pytest
from live import BUILD, needs_root
from paper import counters, disks, undo

BLOCKD = BUILD / "src" / "cmd" / "mallee-blockd"


@pytest.fixture
def model(tmp_path):
    with undo.Undo(tmp_path / "record") as changes, disks.ModelDisk(changes, BLOCKD, tmp_path, 1) as disk:
        yield disk


@needs_root
@pytest.mark.parametrize("load", [["--write", "--depth", "8"], ["--depth", "1"], ["--random", "--bs", "4096", "--depth", "4"]])
def test_columns_agree_with_iostat(model, load):
    with subprocess.Popen([BUILD / "bench" / "aio-load", model.device, "--seconds", "30", *load], stdout=subprocess.DEVNULL) as process:
        time.sleep(0.7)
        before, begin = counters.Disk.read(model.device), time.monotonic()
        said = subprocess.run(["iostat", "-dxy", "-o", "JSON", model.device, "3", "1"], capture_output=True, text=True, check=True).stdout
        seconds = time.monotonic() - begin
        ours = counters.columns(counters.Disk.read(model.device).since(before), seconds)
        process.terminate()
    theirs = json.loads(said)["sysstat"]["hosts"][0]["statistics"][0]["disk"][0]
    kind = "w" if "--write" in load else "r"
    assert ours["avgrq_sectors"] == pytest.approx(theirs[f"{kind}areq-sz"] * 2, rel=0.05)
    assert ours["avgqu"] == pytest.approx(theirs["aqu-sz"], rel=0.06)
    assert ours["util_percent"] == pytest.approx(theirs["util"], abs=4)


def test_an_idle_disk_has_no_request_size():
    idle = counters.Disk(0, 0, 0, 0, 0, 0, 0)
    assert counters.columns(idle, 1.0) == {"avgrq_sectors": None, "avgqu": 0.0, "util_percent": 0.0}


def test_columns_by_hand():
    moved = counters.Disk(reads=10, read_sectors=1280, writes=0, write_sectors=0, busy_ms=500, weighted_ms=2000, flushes=0)
    assert counters.columns(moved, 1.0) == {"avgrq_sectors": 128.0, "avgqu": 2.0, "util_percent": 50.0}
