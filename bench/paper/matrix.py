# SPDX-License-Identifier: Apache-2.0
"""Plays the rows: each repetition goes through all configurations, forwards and backwards in turn, and in each through all workloads,
so that what the machine does meanwhile falls on all of them alike. A configuration is set up anew for each repetition.

Every workload is first run once briefly: that warms up, and its rate says how large a run must be to take as long as is wished.
"""
import re
import statistics
import time

from paper import counters, sessions, workloads
from servers import CannotMeasure

MIB = 1 << 20
SECONDS, SECONDS_LEAST = 3.0, 1.2
SETUP_S, RUN_EXTRA_S = 5, 0.9   # guesses until it is known
PROBE_BYTES = 8 * MIB
PROBE_S = 0.3
SIZE_LEAST = 4 * MIB
PASSED = 0.9 # of its bytes a run must have moved at the disk, or a cache answered


def disk_figures(begin, end, run, extra_cpu):
    """A run's figures out of two moments."""
    seconds, moved = end.at - begin.at, end.disk.since(begin.disk)
    size = run["bytes"]
    path_cpu = end.path_cpu - begin.path_cpu + extra_cpu
    model_cpu = end.model_cpu - begin.model_cpu
    vcpu = counters.busiest(begin.vcpu_cpu, end.vcpu_cpu)
    return {"mb_s": size / run["seconds"] / 1e6, "seconds": run["seconds"], "bytes": size, "cpu_s": path_cpu,
            **({"iops": run["ops"] / run["seconds"]} if "ops" in run else {}),
            **({"exits": end.exits - begin.exits} if None not in (begin.exits, end.exits) else {}), **counters.columns(moved, seconds),
            "guest_cpu_percent": 100 * vcpu / seconds, "host_cpu_percent": 100 * (end.busy - begin.busy) / seconds / counters.cores(),
            "flushes_s": moved.flushes / seconds, "disk_bytes": moved.sectors * counters.SECTOR,
            "steal_s": end.steal - begin.steal, "others_s": max(0.0, end.busy - begin.busy - path_cpu - model_cpu), "elapsed_s": seconds}


class Plan:
    """How long runs are and how often they repeat, so that all fits the time that is given."""

    def __init__(self, configurations, works, repetitions, minutes):
        self.works = len(works)
        self.sized = sum(1 for work in works if workloads.is_sized(work))
        self.configurations = len(configurations)
        self.repetitions, self.seconds = repetitions, SECONDS
        self.deadline = time.monotonic() + minutes * 60 if minutes else None
        if minutes:
            while self.repetitions > 1 and self._fitting(minutes * 60, self.repetitions) < SECONDS_LEAST:
                self.repetitions -= 1
            self.seconds = max(SECONDS_LEAST, min(SECONDS, self._fitting(minutes * 60, self.repetitions)))

    def _fitting(self, given_s, repetitions):
        sessions_, runs = self.configurations * repetitions, self.configurations * self.works * repetitions
        probes = self.configurations * self.works
        return (given_s * 0.93 - sessions_ * SETUP_S - probes * RUN_EXTRA_S) / max(1, runs) - RUN_EXTRA_S

    def refit(self, took_s, turns):
        """A turn took so long, and so many are to come: they are shortened when they would not fit."""
        over = took_s * turns - (self.deadline - time.monotonic()) if self.deadline else 0
        if turns and over > 0:
            self.seconds = max(SECONDS_LEAST, self.seconds - over / (turns * self.configurations * self.works))

    def expected_s(self):
        return self.configurations * self.repetitions * (SETUP_S + self.works * (self.seconds + RUN_EXTRA_S)) \
            + self.configurations * self.works * RUN_EXTRA_S


class Progress:
    """How far it is and how long it will take, from what it took until now; to stderr."""

    def __init__(self, plan, say):
        self.total = plan.configurations * plan.works * plan.repetitions
        self.expected = plan.expected_s()
        self.begin = time.monotonic()
        self.done = 0
        self.say = say

    def left_s(self):
        spent, part = time.monotonic() - self.begin, self.done / max(1, self.total)
        guess = self.expected * (1 - part)
        return guess if part < 0.05 else (1 - part) * (spent / part * 0.8 + self.expected * 0.2)

    def step(self, text, count=1):
        self.done += count
        left = self.left_s()
        self.say(f"{self.done:>4}/{self.total}  {text}   {left / 60:.0f} min left" if left >= 90 else
                 f"{self.done:>4}/{self.total}  {text}   {left:.0f} s left")


class Matrix:
    """bench: see sessions.Session. After play(): runs[(configuration, workload)], empty[…]: why there is none, paths[configuration]."""

    def __init__(self, bench, configurations, works, plan, say):
        self.bench = bench
        self.configurations = configurations
        self.works = works
        self.plan = plan
        self.progress = Progress(plan, say)
        self.runs, self.empty, self.paths, self.rates = {}, {}, {}, {}

    def play(self):
        for turn in range(self.plan.repetitions):
            begin = time.monotonic()
            for one in self.configurations if turn % 2 == 0 else self.configurations[::-1]:
                self._session(one)
            took = time.monotonic() - begin
            before = self.plan.seconds
            self.plan.refit(took, self.plan.repetitions - turn - 1)
            took -= (before - self.plan.seconds) * len(self.configurations) * len(self.works)
            if self.plan.deadline and turn + 1 < self.plan.repetitions and time.monotonic() + took * 0.95 > self.plan.deadline:
                self.progress.say(f"      the time is up: {turn + 1} repetitions instead of {self.plan.repetitions}")
                break

    def _session(self, one):
        missing = [work for work in self.works if (one["id"], work["id"]) not in self.empty]
        if not missing:
            return
        try:
            self._check_time()
            with sessions.SESSIONS[one["session"]](self.bench, one) as session:
                self.paths[one["id"]] = session.path
                for work in missing:
                    self._check_time()
                    self._run(session, one, work)
        except CannotMeasure as reason:
            self._give_up(one, missing, reason)

    def _check_time(self):
        if self.plan.deadline and time.monotonic() > self.plan.deadline:
            raise CannotMeasure("the time was over before its turn came")

    def _give_up(self, one, works, reason):
        """What has been measured is kept."""
        for work in works:
            if (one["id"], work["id"]) not in self.runs:
                self.empty[one["id"], work["id"]] = brief(reason)
        self.progress.step(f"{one['id']:<18} {reason}", len(works))

    def _run(self, session, one, work):
        key = one["id"], work["id"]
        try:
            if key not in self.rates:
                probe = self._measure(session, work, PROBE_BYTES if workloads.is_sized(work) else workloads.most(work, session.size), PROBE_S)
                self.rates[key] = probe["mb_s"] * 1e6
            run = self._measure(session, work, self._size(session, work, self.rates[key]), self.plan.seconds)
        except CannotMeasure as reason:
            if session_died(session):
                raise
            if key not in self.runs:
                self.empty[key] = brief(reason)
            self.progress.step(f"{one['id']:<18} {work['id']:<13} {reason}")
            return
        self.rates[key] = statistics.fmean([run["mb_s"] * 1e6, max(self.rates[key], run["mb_s"] * 1e6 / 4)])
        self.runs.setdefault(key, []).append(run)
        self.progress.step(f"{one['id']:<18} {work['id']:<13} {run['mb_s']:>6.1f} MB/s  {run['avgrq_sectors'] or 0:>5.0f} sectors  "
                           f"queue {run['avgqu']:>5.1f}  {run['util_percent']:>3.0f} %")

    def _size(self, session, work, rate):
        """Bytes of the run, or of the span that a timed one covers."""
        most = workloads.most(work, session.size)
        if not workloads.is_sized(work):
            return most
        return int(min(most, max(SIZE_LEAST, rate * self.plan.seconds))) // MIB * MIB

    def _measure(self, session, work, size, seconds):
        session.prepare(work, size)
        line = workloads.command(work, session.target, session.programs, size=size, seconds=seconds)
        session.cool(work)
        begin = session.moment()
        text, extra_cpu = session.run(line)
        end = session.moment()
        session.streamed = size if work["id"] == "stream-write" else 0 if work["write"] else session.streamed
        told = workloads.figures(work, text)
        told["seconds"] += session.flush_s
        run = disk_figures(begin, end, told, extra_cpu)
        if not work["random"] and run["disk_bytes"] < PASSED * min(run["bytes"], size):
            raise CannotMeasure(f"only {run['disk_bytes'] // MIB} MiB of {run['bytes'] // MIB} passed the disk: a cache answered")
        return run


def brief(reason):
    """Without the logs that it points to: they go with the run's folder."""
    return re.sub(r" \((?:all of it:|see) [^)]*\)", "", str(reason))


def session_died(session):
    guest = getattr(session, "guest", None)
    return guest is not None and guest.process.poll() is not None
