# SPDX-License-Identifier: Apache-2.0
"""`mallee bench disk` from end to end: with a guest, on the modelled disk. The slow ones show the shape of the study's tables."""
import json
import subprocess

import pytest
from live import bench_words, loop_device, must, needs_root
from paper import disks
from paper import result as results

pytestmark = needs_root


def measured(folder, *words, timeout=280):
    """(rows by configuration and workload, the result)."""
    path = folder / "result.json"
    done = subprocess.run(bench_words("disk", "--json", path, *words), capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    result = results.check(json.loads(path.read_text()))
    return {(row["configuration"], row["workload"]): row for row in result["rows"]}, result


@pytest.fixture
def own_record(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLEE_BENCH_RECORD", str(tmp_path / "record.json"))
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.mark.timeout(300)
def test_host_and_guest_on_the_model(own_record):
    rows, result = measured(own_record, "--rows", "none,disk-virtio-phy,xen-disk-scsi-phy", "--workloads", "dd-write,dd-read", "--repetitions",
                            "1", "--scale", "8", "--accel", "tcg")
    rate = result["settings"]["rate_mb_s"]
    assert rate == pytest.approx(14)
    for (configuration, workload), row in rows.items():
        if configuration.startswith("xen"):
            assert "Xen" in row["why_empty"] and row.get("mb_s") is None
            continue
        assert row["why_empty"] is None
        assert 0.3 * rate < row["mb_s"] < 1.15 * rate, row
        assert 100 < row["avgrq_sectors"] < 3000
        assert 20 < row["util_percent"] <= 100
        assert row["cpu_s_per_gb"] > 0
        assert row["path"]["disk_mb_s"] == pytest.approx(rate)
        assert row["path"]["write"] == (workload == "dd-write")
        assert row["study"]["mb_s"] > 70
    assert rows["none", "dd-write"]["ratio"] == 1
    assert 0 < rows["disk-virtio-phy", "dd-read"]["path"]["guest_cpu_percent"] <= 110
    assert "guest_cpu_percent" not in rows["none", "dd-read"]["path"]
    assert result["host"]["accel"] == "tcg" and result["foreign"]["load"] >= 0


@pytest.mark.timeout(300)
def test_file_as_the_disk_under_test(own_record):
    """A real disk below: no rate is known, what the host gets is the best."""
    rows, result = measured(own_record, "--file", own_record, "--rows", "none", "--workloads", "aio8-read,stream-write,stream-read",
                            "--repetitions", "1")
    assert result["settings"]["rate_mb_s"] is None
    assert rows["none", "aio8-read"]["avgrq_sectors"] == pytest.approx(128, rel=0.25)  # others use that disk, too
    assert rows["none", "stream-read"]["mb_s"] > 0
    assert rows["none", "stream-write"]["path"]["disk_mb_s"] == max(run["mb_s"] for row in rows.values() for run in row["runs"])


def test_real_disk_is_destroyed_when_that_is_asked_for(own_record):
    """And is blank afterwards: a next run is not refused for what this one left."""
    with loop_device(own_record) as device:
        must("mkfs.ext4", "-q", "-F", device)
        rows, result = measured(own_record, "--disk", device, "--destroy", "--rows", "none", "--workloads", "direct-write", "--repetitions", "1")
        assert rows["none", "direct-write"]["mb_s"] > 0
        assert device in result["settings"]["disk"]
        disks.check_free(device, False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sparse_file_leaves_the_disk_to_the_next_row(own_record):
    """Also when somebody makes a mount namespace meanwhile, which keeps a copy of what was mounted then."""
    with subprocess.Popen(bench_words("disk", "--rows", "file-scsi,mallee", "--workloads", "direct-write", "--repetitions", "2", "--accel", "tcg",
                                      "--json", str(own_record / "result.json")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        said = process.stderr.readline() + process.stderr.readline() # what it will do; its first row, of the file
        with subprocess.Popen(["unshare", "--mount", "sleep", "300"]) as other:
            said += process.stderr.read()
            other.kill()
    assert process.returncode == 0, said
    rows = json.loads((own_record / "result.json").read_text())["rows"]
    assert [row["configuration"] for row in rows if len(row["runs"]) == 2] == ["file-scsi", "mallee"], said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shape_of_the_studys_tables(own_record):
    """The disk is slowed, so that an emulated processor does not hide it."""
    rows, _ = measured(own_record, "--rows", "none,file-scsi,disk-scsi-phy,disk-virtio-phy,mallee", "--workloads",
                       "dd-write,dd-read,direct-read,aio8-read", "--repetitions", "3", "--scale", "4", timeout=880)
    host = rows["none", "dd-write"]["mb_s"]
    others = [row["mb_s"] for (name, work), row in rows.items() if work == "dd-write" and name != "file-scsi"]
    assert rows["file-scsi", "dd-write"]["mb_s"] < 0.3 * min(others)         # sparse SCSI far below everything
    scsi, virtio = rows["disk-scsi-phy", "dd-write"], rows["disk-virtio-phy", "dd-write"]
    assert scsi["avgrq_sectors"] == pytest.approx(256, rel=0.15) and scsi["avgqu"] < 1
    assert virtio["avgrq_sectors"] > 500 and virtio["avgqu"] > scsi["avgqu"] # virtio with large requests and a deeper queue
    starved = rows["disk-virtio-phy", "direct-read"]
    assert starved["avgqu"] < 1 and starved["mb_s"] < rows["disk-virtio-phy", "aio8-read"]["mb_s"]
    assert rows["mallee", "dd-write"]["mb_s"] > 0.85 * host                  # Mallee at the disk
    assert rows["mallee", "direct-read"]["mb_s"] > 1.05 * starved["mb_s"]
