# SPDX-License-Identifier: Apache-2.0
"""`mallee bench net`: the time that runs take, and rows out of runs."""
import argparse

import pytest
from paper import net
from paper.net import Case, Experiment, Plan
from servers import CannotMeasure


def arguments(*words):
    parser = argparse.ArgumentParser()
    net.add_arguments(parser)
    return parser.parse_args(["--accel", "tcg", *words])


def run_of(figure, name="mbit_s", **more):
    return {"seconds": 1.0, "bytes": 125000000, "cpu_s": 0.5, "host_cpu_percent": 60.0, name: figure, **more}


class FakePath:
    def __init__(self, facts, answers):
        self.facts = facts
        self.answers = answers

    def run(self, target, workload, seconds):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("minutes, seconds, repetitions", [(60, 5, 5), (10, 3.66, 5), (5, 1.3, 5), (4, 1.1, 4), (3, 1.5, 2), (0.1, 1.0, 1)])
def test_runs_fit_into_the_time(minutes, seconds, repetitions):
    plan = Plan(24, 4, arguments("--minutes", str(minutes)))
    assert plan.repetitions == repetitions and plan.seconds == pytest.approx(seconds, rel=0.05)
    assert 4 * net.BOOT_S + 24 * plan.repetitions * plan.seconds < minutes * 60 or plan.repetitions == 1


def test_without_a_limit_all_is_as_asked(monkeypatch):
    plan = Plan(24, 4, arguments("--seconds", "7", "--repetitions", "9"))
    assert (plan.seconds, plan.repetitions) == (7, 9) and not plan.time_is_up(-1e9, 5)


def test_no_turn_is_begun_that_would_not_end_in_time(monkeypatch):
    plan = Plan(24, 4, arguments("--minutes", "5"))
    now = plan.end - 100
    monkeypatch.setattr(net.time, "monotonic", lambda: now)
    assert not plan.time_is_up(now - 99, 1) and plan.time_is_up(now - 101, 1) and not plan.time_is_up(now - 101, 2)
    assert not plan.time_is_up(now - 1000, 0) # the first one is


def test_cases_are_those_that_were_asked_for_and_the_hosts_own():
    chosen = Experiment(arguments("--configuration", "mallee", "--workload", "tcp-to-guest"))
    assert chosen.cases() == [Case(c, t, "tcp-to-guest") for t in ("host", "peer") for c in ("none", "mallee")]
    assert len(Experiment(arguments()).cases()) == 24


def experiment_with(runs, **why):
    e = Experiment(arguments("--workload", "tcp-to-guest", "--target", "peer"))
    e.paths = {c: FakePath({"emulated": c == "e1000"}, []) for c in net.CONFIGURATIONS}
    e.runs = {Case(c, "peer", "tcp-to-guest"): several for c, several in runs.items()}
    e.why_empty = dict(why)
    return e, {row["configuration"]: row for row in e.rows()}


def test_rows():
    _, rows = experiment_with({"none": [run_of(940), run_of(900), run_of(960)],
                               "e1000": [run_of(100, guest_cpu_percent=99.0), run_of(200, guest_cpu_percent=97.0)],
                               "mallee": [run_of(470)]}, **{"virtio-net": "no guest"})
    assert rows["none"]["mbit_s"] == 940 and rows["none"]["ratio"] == 1 and not rows["none"]["unreliable"]
    assert rows["none"]["study"] == {"mbit_s": 940} and rows["none"]["vmm"] == "none" and rows["none"]["driver"] is None
    assert rows["none"]["cpu_s_per_gb"] == pytest.approx(4.0) and rows["none"]["spread_percent"] == pytest.approx(6.4)
    assert rows["e1000"]["mbit_s"] == 150 and rows["e1000"]["unreliable"] and rows["e1000"]["path"]["guest_cpu_percent"] == 98
    assert rows["e1000"]["path"]["emulated"] and rows["e1000"]["study"] is None
    assert rows["mallee"]["ratio"] == 0.5 and rows["mallee"]["unreliable"] # of one run no spread is known
    assert rows["virtio-net"]["why_empty"] == "no guest" and "mbit_s" not in rows["virtio-net"]


def test_a_case_that_fails_says_why_and_the_others_go_on():
    e, _ = experiment_with({})
    e.plan.repetitions = 2
    good = ({"seconds": 1.0, "bytes": 10 ** 8, "mbit_s": 800.0}, 0.2, 0.5)
    for name, path in e.paths.items():
        path.answers = [good, CannotMeasure("gone")] if name == "e1000" else [good] * 3
    e.measure()
    rows = {row["configuration"]: row for row in e.rows()}
    assert rows["e1000"]["why_empty"] == "gone" and not rows["e1000"].get("runs")
    assert [len(rows[c]["runs"]) for c in ("none", "virtio-net", "mallee")] == [2, 2, 2]
    assert rows["mallee"]["runs"][0]["guest_cpu_percent"] == 50
