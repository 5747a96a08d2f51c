# SPDX-License-Identifier: Apache-2.0
"""How runs are ordered, sized and fitted into a time, and what rows are made of them; with sessions that only pretend."""
import json
import time
from types import SimpleNamespace

import pytest
from paper import columns, configurations, counters, matrix, rows, sessions, workloads
from servers import CannotMeasure

MIB = 1 << 20
DD = workloads.BY_ID["dd-write"]


class Pretended:
    """A session whose disk moves so many bytes a second, on a clock of its own."""
    programs, target, vcpus, path = "/bin", "/dev/null", [], {}
    size = 1 << 30
    rate = 50e6
    log = []

    def __init__(self, bench, configuration):
        self.name = configuration["id"]
        self.streamed, self.flush_s = 0, 0.0
        self.at, self.sectors = 0.0, 0

    def __enter__(self):
        self.log.append(self.name)
        return self

    def __exit__(self, *_):
        pass

    def prepare(self, work, size):
        pass

    def cool(self, work):
        pass

    def run(self, line):
        if "fail" in self.name:
            raise CannotMeasure("it broke")
        size = int(line.rpartition("count=")[2].split(")")[0]) * 65536
        self.at += size / self.rate
        self.sectors += size // 512
        self.log.append((self.name, size))
        return f"{size} bytes (x) copied, {size / self.rate} s, y\n", 0.5

    def moment(self):
        disk = counters.Disk(0, 0, self.sectors // 128, self.sectors, int(self.at * 1000), int(self.at * 2000), 0)
        return counters.Moment(at=self.at, disk=disk, path_cpu=0, vcpu_cpu=[], exits=None, model_cpu=0, busy=self.at, steal=0)


@pytest.fixture
def pretended(monkeypatch):
    Pretended.log = []
    monkeypatch.setitem(sessions.SESSIONS, "pretended", Pretended)
    return Pretended


def play(names, repetitions=2, minutes=None, works=(DD,)):
    plan = matrix.Plan(names, works, repetitions, minutes)
    played = matrix.Matrix(None, [{"id": name, "session": "pretended"} for name in names], list(works), plan, lambda text: None)
    played.play()
    return played


def test_repetitions_go_forwards_and_backwards(pretended):
    play(["a", "b", "c"], repetitions=3)
    assert [entry for entry in pretended.log if isinstance(entry, str)] == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]


def test_a_run_takes_about_as_long_as_is_wished(pretended):
    played = play(["a"])
    assert [run["seconds"] for run in played.runs["a", "dd-write"]] == pytest.approx([3, 3], rel=0.05)


def test_each_is_warmed_up_once(pretended):
    play(["a"], repetitions=3)
    sizes = [entry[1] for entry in pretended.log if isinstance(entry, tuple)]
    assert len(sizes) == 4 and sizes[0] == 8 * MIB


def test_columns_of_a_run(pretended):
    run = play(["a"], repetitions=1).runs["a", "dd-write"][0]
    assert run["mb_s"] == pytest.approx(50)
    assert run["avgrq_sectors"] == 128 and run["avgqu"] == pytest.approx(2, rel=0.01) and run["util_percent"] == pytest.approx(100, abs=1)
    assert run["cpu_s"] == 0.5


def test_what_breaks_is_told_and_the_rest_goes_on(pretended):
    played = play(["a", "fail", "b"])
    assert played.empty == {("fail", "dd-write"): "it broke"}
    assert len(played.runs["a", "dd-write"]) == len(played.runs["b", "dd-write"]) == 2


def test_what_a_cache_answered_is_no_run(pretended, monkeypatch):
    monkeypatch.setattr(Pretended, "moment", lambda self: counters.Moment(self.at, counters.Disk(0, 0, 0, 0, 0, 0, 0), 0, [], None, 0, 0, 0))
    played = play(["a"])
    assert "a cache answered" in played.empty["a", "dd-write"]


def test_when_the_time_is_over_rows_say_so(pretended):
    plan = matrix.Plan(["a"], [DD], 1, 1)
    plan.deadline = time.monotonic() - 1
    played = matrix.Matrix(None, [{"id": "a", "session": "pretended"}], [DD], plan, lambda text: None)
    played.play()
    assert "the time was over" in played.empty["a", "dd-write"]


@pytest.mark.parametrize("minutes", [10, 15, 22.4, 30, 60])
def test_the_matrix_fits_the_time_that_is_given(minutes):
    plan = matrix.Plan(range(10), workloads.WORKLOADS, 3, minutes)
    assert plan.expected_s() <= minutes * 60
    assert plan.repetitions >= 1 and matrix.SECONDS_LEAST <= plan.seconds <= matrix.SECONDS


def test_without_a_time_runs_are_as_long_and_as_many_as_they_should():
    plan = matrix.Plan(range(10), workloads.WORKLOADS, 3, None)
    assert (plan.repetitions, plan.seconds, plan.deadline) == (3, matrix.SECONDS, None)


def test_turns_that_take_too_long_are_shortened():
    plan = matrix.Plan(range(10), workloads.WORKLOADS, 3, 30)
    before, runs = plan.seconds, 10 * len(workloads.WORKLOADS)
    plan.refit(600, 2) # 20 of 30 minutes: all is well
    assert plan.seconds == before
    plan.refit(900 + runs * 0.5, 2)
    assert plan.seconds == pytest.approx(before - 0.5, abs=0.01)
    plan.refit(90000, 2)
    assert plan.seconds == matrix.SECONDS_LEAST


# ---- tables ----

def test_every_row_of_the_study_is_here():
    for row in json.loads(rows.STUDY.read_text())["rows"]:
        one = configurations.BY_ID[row["configuration"]]
        assert one["target"] == row["target"], row
        assert row["workload"] in workloads.BY_ID


def test_every_workload_is_told_by_the_report():
    assert set(workloads.BY_ID) <= set(columns.BY_ID)


def test_a_row_is_run_by_somebody_or_says_why_not():
    for one in configurations.CONFIGURATIONS:
        assert one["session"] in sessions.SESSIONS or one["why_empty"]


def test_the_stream_fits_the_disk_with_its_checksums():
    size = 1 << 30
    data = workloads.most(workloads.BY_ID["stream-write"], size)
    assert data % workloads.BLOCK == 0
    assert data + data // workloads.BLOCK * workloads.META <= size


# ---- rows ----

def fake_run(mb_s, **more):
    return {"mb_s": mb_s, "avgrq_sectors": 256, "avgqu": 0.6, "util_percent": 60, "cpu_s": 2.0, "seconds": 1.0, "bytes": int(mb_s * 1e6),
            "guest_cpu_percent": 50, "host_cpu_percent": 40, "flushes_s": 1, "disk_bytes": int(mb_s * 1e6) + 40960, **more}


def row(name, runs, empty=None):
    return rows.row_of(configurations.BY_ID[name], DD, runs, empty, {}, {"disk_mb_s": 112}, rows.study_figures(), "tcg")


def test_a_row_is_its_runs_medians():
    made = row("disk-scsi-phy", [fake_run(50), fake_run(60), fake_run(52)])
    assert made["mb_s"] == 52 and made["vmm"] == "tcg" and made["why_empty"] is None
    assert made["unreliable"] and made["spread_percent"] == pytest.approx(100 * 10 / 52, abs=0.1)
    assert made["cpu_s_per_gb"] == pytest.approx(2 / 0.052, rel=0.01)
    assert made["study"] == {"mb_s": 71.5, "avgrq_sectors": 256, "avgqu": 0.57, "util_percent": 64}
    assert made["path"]["emulated"] and not made["path"]["host_cache"] and made["path"]["guest_cpu_percent"] == 50


def test_close_runs_are_reliable_and_a_single_one_is_not():
    assert not row("disk-scsi-phy", [fake_run(50), fake_run(51)])["unreliable"]
    assert row("disk-scsi-phy", [fake_run(50)])["unreliable"]


def test_blocks_beside_the_data_are_metadata():
    assert row("file-scsi", [fake_run(50)])["path"]["metadata_writes_s"] == 10


def test_exits_out_of_kvm_are_told_for_each_request():
    requests = 50e6 / DD["request_bytes"]
    path = row("disk-scsi-phy", [fake_run(50, exits=round(requests * 9)), fake_run(50, exits=round(requests * 11)), fake_run(50)])["path"]
    assert path["exits_per_request"] == pytest.approx(10, rel=0.01)
    assert "exits_per_request" not in row("disk-scsi-phy", [fake_run(50)])["path"] # emulated: nobody counts


@pytest.mark.parametrize("name, empty, said", [("xen-disk-xvd-phy", None, "Xen"), ("ec2-ebs", None, "EC2"), ("disk-nvme", "it broke", "it broke"),
                                               ("net-mallee", None, "AoE")])
def test_an_empty_row_says_why(name, empty, said):
    assert said in row(name, [], empty)["why_empty"]


def test_ratios_are_to_the_host():
    made = rows.with_ratios([row("none", [fake_run(100)]), row("disk-scsi-phy", [fake_run(60)]), row("xen-disk-xvd-phy", [])])
    assert [one.get("ratio") for one in made] == [1.0, 0.6, None]


def test_the_disks_best_is_the_models_rate_or_what_the_host_got():
    runs = {("none", "dd-write"): [fake_run(100, avgrq_sectors=1000)], ("disk-nvme", "dd-write"): [fake_run(200)]}
    model = SimpleNamespace(rate=112e6, largest_request_sectors=lambda: 2560)
    real = SimpleNamespace(rate=None, largest_request_sectors=lambda: 2560)
    # Its best request is in the host's rows, by direction.
    assert rows.disk_facts(model, runs) == {"disk_mb_s": 112}
    assert rows.disk_facts(real, runs) == {"disk_mb_s": 100}
    assert rows.disk_facts(real, {}) == {"disk_mb_s": None, "disk_best_sectors": 2560}
