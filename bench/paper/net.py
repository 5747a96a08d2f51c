# SPDX-License-Identifier: Apache-2.0
"""How much of the network a guest gets: TCP in both directions and request/response, to its own host and to another one, for an
emulated card (e1000), a paravirtual one (virtio-net) and the one that Mallee gives its instances, beside the host's own figures.
The study's Figure 4.

The other host is a network namespace behind a cable, or --peer ADDRESS, where `mallee bench net --serve` runs. Cards have the
offloads that they come with. Everything that is made on this host for it goes at the end.
"""
import argparse
import contextlib
import datetime
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

from guest import image as guest_image
from paper import accel, explain
from paper.disk import host_facts, version
from paper.hostnet import BUILD, SOURCE, HostNet, program
from paper.netpaths import PORT, GuestPath, HostPath, OtherHost, own_processes_s
from paper.report import add_output_arguments, finish
from paper.rows import STUDY
from paper.undo import Undo, end_on_signals
from paper.watch import SPREAD_PERCENT, Processor, foreign, spread_percent
from servers import CannotMeasure

CONFIGURATIONS = ("none", "e1000", "virtio-net", "mallee")
WORKLOADS = ("tcp-to-guest", "tcp-from-guest", "request-response")
TARGETS = ("host", "peer")
WARM_UP_S = 0.5
BOOT_S = 15           # a guess, of a guest under emulation
RUN_EXTRA_S = 0.4     # to connect and to ask
SECONDS_LEAST = 1.0   # of a run, before repetitions are dropped

Case = namedtuple("Case", "configuration target workload")


def seconds(text):
    value = float(text)
    if not 0.2 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: from 0.2 to 3600")
    return value


def count(text):
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: from 1 to 100")
    return value


def minutes(text):
    value = float(text)
    if not 0 < value <= 1440:
        raise argparse.ArgumentTypeError(f"{text}: more than 0, and at most a day")
    return value


def add_arguments(parser):
    parser.add_argument("--peer", metavar="ADDRESS", help="another host, where `mallee bench net --serve` runs, instead of a namespace")
    parser.add_argument("--serve", action="store_true", help="be that other host, until interrupted")
    parser.add_argument("--listen", metavar="ADDRESS", help="of --serve: on this address only")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help="TCP port of all servers (%(default)s)")
    parser.add_argument("--seconds", type=seconds, default=5, metavar="S", help="of one run (%(default)s)")
    parser.add_argument("--repetitions", type=count, default=5, metavar="N", help="runs of each case, in turn (%(default)s)")
    parser.add_argument("--minutes", type=minutes, metavar="M", help="take no longer: runs are shortened, then repetitions dropped")
    parser.add_argument("--configuration", action="append", choices=CONFIGURATIONS, help="only these; may be given again")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="only these; may be given again")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only to the guest's own host, or only to another")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="what guests run on (%(default)s: as Mallee finds)")
    add_output_arguments(parser)


class Plan:
    """How long a run is and how often each case is run, so that all fits the time that is given."""

    def __init__(self, cases, configurations, args):
        self.cases = cases
        self.seconds, self.repetitions = args.seconds, args.repetitions
        self.end = time.monotonic() + args.minutes * 60 if args.minutes else None
        if not self.end:
            return
        given = args.minutes * 60 * 0.95 - configurations * BOOT_S - cases * (WARM_UP_S + RUN_EXTRA_S)
        while self.repetitions > 1 and self.fitting(given) < SECONDS_LEAST:
            self.repetitions -= 1
        self.seconds = max(SECONDS_LEAST, min(args.seconds, self.fitting(given)))

    def fitting(self, given):
        return given / (self.cases * self.repetitions) - RUN_EXTRA_S

    def time_is_up(self, begin, turns):
        """Before another turn, when those before took as long as they did."""
        return bool(self.end and turns and time.monotonic() + (time.monotonic() - begin) / turns > self.end)

    def left_s(self, begin, done):
        return (time.monotonic() - begin) / done * (self.cases * self.repetitions - done)


class Experiment:
    """Who connects to whom, the runs in turn, and what they came to."""

    def __init__(self, args):
        self.args = args
        chosen = args.configuration or CONFIGURATIONS
        self.configurations = ["none"] + [c for c in CONFIGURATIONS if c in chosen and c != "none"] # ratios are to it
        self.targets = [t for t in TARGETS if t in (args.target or TARGETS)]
        self.workloads = [w for w in WORKLOADS if w in (args.workload or WORKLOADS)]
        self.accel = accel.choose(args.accel)
        self.plan = Plan(len(self.cases()), len(self.configurations), args)
        self.paths = {}
        self.why_empty = {} # of a configuration, or of a case
        self.runs = {}
        self.own_s = 0.0

    def cases(self):
        return [Case(c, t, w) for w in self.workloads for t in self.targets for c in self.configurations]

    def prepare(self, stack, undo, folder):
        net = stack.enter_context(HostNet(undo, folder))
        other = OtherHost(net, self.args.peer, self.args.port)
        self.paths["none"] = stack.enter_context(HostPath(net, other, self.args.port))
        for configuration in self.configurations[1:]:
            say(f"starting a guest with {configuration} ({self.accel}) …")
            try:
                image = guest_image(BUILD, SOURCE)
                self.paths[configuration] = stack.enter_context(
                    GuestPath(net, other, configuration, image=image, accel=self.accel, port=self.args.port))
            except CannotMeasure as e:
                self.why_empty[configuration] = str(e)

    def why(self, case):
        return self.why_empty.get(case.configuration) or self.why_empty.get(case)

    def measure(self):
        """Every case once to warm up, and then all of them in turn, as often as was asked for."""
        for case in self.cases():
            if not self.why(case):
                self.attempt(case, WARM_UP_S)
        begin, done = time.monotonic(), 0
        for turn in range(self.plan.repetitions):
            if self.plan.time_is_up(begin, turn):
                say(f"the time is up: {turn} repetitions instead of {self.plan.repetitions}")
                break
            for case in self.cases():
                done += 1
                run = None if self.why(case) else self.attempt(case, self.plan.seconds)
                if run:
                    self.runs.setdefault(case, []).append(run)
                    self.tell(case, run, done, self.plan.left_s(begin, done))

    def tell(self, case, run, done, left_s):
        figure = f"{run['transactions_s']:,.0f} transactions/s" if "transactions_s" in run else f"{run['mbit_s']:,.0f} Mb/s"
        left = f"{left_s / 60:.0f} min" if left_s >= 90 else f"{left_s:.0f} s"
        say(f"{done:>4}/{self.plan.cases * self.plan.repetitions}  {case.workload:<16} {case.configuration:<10} to {case.target}: "
                 f"{figure:>22}   {left} left")

    def attempt(self, case, duration):
        processor = Processor()
        try:
            said, cpu_s, vcpu_s = self.paths[case.configuration].run(case.target, case.workload, duration)
        except CannotMeasure as e:
            self.why_empty[case] = str(e)
            self.runs.pop(case, None)
            return None
        self.own_s += cpu_s
        run = {"seconds": said["seconds"], "bytes": said["bytes"], "cpu_s": round(cpu_s, 3), "host_cpu_percent": round(processor.percent(), 1)}
        if vcpu_s is not None:
            run["guest_cpu_percent"] = round(min(100.0, 100 * vcpu_s / said["seconds"]), 1)
        name = "transactions_s" if case.workload == "request-response" else "mbit_s"
        run[name] = said[name]
        return run

    def rows(self):
        return [self.row(case) for case in self.cases()]

    def row(self, case):
        row = {"configuration": case.configuration, "vmm": vmm_of(case.configuration, self.accel),
               "target": case.target, "driver": None if case.configuration == "none" else case.configuration,
               "workload": case.workload, "why_empty": self.why(case), "study": study_of(case), "model": None, "held_back_by": []}
        runs = self.runs.get(case)
        if not runs:
            row["why_empty"] = row["why_empty"] or "not measured"
            return row
        row["why_empty"] = None
        name = figure_of(case.workload)
        values = [run[name] for run in runs]
        row[name] = round(statistics.median(values), 2)
        streams = case.workload != "request-response" # where bytes mean nothing
        cpu = [run["cpu_s"] / run["bytes"] * 1e9 for run in runs if run["bytes"] and streams]
        native = self.runs.get(case._replace(configuration="none"))
        return row | {
            "ratio": round(statistics.median(values) / statistics.median(run[name] for run in native), 4) if native else None,
            "cpu_s_per_gb": round(statistics.median(cpu), 3) if cpu else None,
            "spread_percent": spread_percent(values), "unreliable": len(values) < 2 or spread_percent(values) > SPREAD_PERCENT,
            "runs": runs, "path": self.path_of(case, runs)}

    def path_of(self, case, runs):
        path = dict(self.paths[case.configuration].facts)
        for name in ("host_cpu_percent", "guest_cpu_percent"):
            values = [run[name] for run in runs if name in run]
            if values:
                path[name] = round(statistics.median(values), 1)
        return path


def figure_of(workload):
    return "transactions_s" if workload == "request-response" else "mbit_s"


def study_of(case):
    """Its Figure 4 is bars without numbers; the text has the bare wire's rate."""
    if case.configuration != "none" or case.target != "peer" or case.workload == "request-response":
        return None
    study = json.loads(STUDY.read_text())
    return {"mbit_s": study["figures"]["4"]["host_to_host_mbit_s"]}


def vmm_of(configuration, accel):
    return "none" if configuration == "none" else accel


@contextlib.contextmanager
def folder_of(undo):
    """For logs and the record of Mallee's network; dnsmasq, another user, has to look into it."""
    folder = Path(tempfile.mkdtemp(prefix="mallee-bench-net-"))
    entry = undo.add("file", path=str(folder))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        undo.drop(entry)


def measure(args):
    experiment = Experiment(args)
    with Undo() as undo, folder_of(undo) as folder, contextlib.ExitStack() as stack:
        experiment.prepare(stack, undo, folder)
        processor, own, start = Processor(), own_processes_s(), time.monotonic()
        experiment.measure()
        others = foreign(processor, experiment.own_s + own_processes_s() - own, time.monotonic() - start)
    return {
        "version": 1, "kind": "net", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "host": host_facts(experiment.accel), "versions": {"qemu": version("qemu-system-x86_64", "--version")},
        "settings": {"peer": args.peer or "namespace", "seconds": round(experiment.plan.seconds, 1),
                     "repetitions": max(map(len, experiment.runs.values()), default=0)},
        "foreign": others, "rows": experiment.rows()}


def serve(args):
    words = [str(program("net-peer")), "--serve", "--port", str(args.port)]
    words += ["--listen", args.listen] if args.listen else []
    print(f"serving on port {args.port} until interrupted", flush=True)
    os.execv(words[0], words)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(args):
    try:
        if args.serve:
            return serve(args)
        if not shutil.which("qemu-system-x86_64"):
            raise CannotMeasure("qemu-system-x86_64 is missing")
        end_on_signals()
        result = measure(args)
    except CannotMeasure as e:
        print(f"mallee bench net: {e}", file=sys.stderr)
        return 1
    finish(explain.explained(result, BUILD, say), args)
    return 1 if any(row["why_empty"] for row in result["rows"]) else 0
