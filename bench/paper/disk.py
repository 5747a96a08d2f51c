# SPDX-License-Identifier: Apache-2.0
"""What guests get of a disk, over hypervisor, target and driver: the study's Tables 1 and 2, with Mallee's path beside the stock ones.

The disk under test is a modelled one unless another is given. It is overwritten.
"""
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import guest as guest_dd
from paper import accel, configurations, disks, explain, matrix, netvolume, rows, sessions, undo, workloads
from paper.hostnet import BUILD, SOURCE, program
from paper.report import add_output_arguments, finish
from servers import CannotMeasure

REPETITIONS = 3


def add_arguments(parser):
    parser.add_argument("--disk", default="model", metavar="model|/dev/X", help="the disk under test (model: a Barracuda 7200.11, in memory); "
                        "a real one is refused when it is in use or holds anything")
    parser.add_argument("--destroy", action="store_true", help="overwrite what the disk holds")
    parser.add_argument("--file", metavar="DIR", help="the disk under test is a file in this folder, written throughout")
    parser.add_argument("--scale", type=float, default=1, metavar="N", help="the modelled disk is N times slower, so that a slow processor "
                        "does not pose as a slow disk (1)")
    parser.add_argument("--rows", metavar="ID,…", help="only these configurations: " + ", ".join(configurations.BY_ID))
    parser.add_argument("--workloads", metavar="ID,…", help="only these: " + ", ".join(workloads.BY_ID))
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N", help=f"runs of each ({REPETITIONS})")
    parser.add_argument("--mtu", type=int, default=netvolume.MTU, metavar="N", help="largest frame on the way to network volumes (%(default)s)")
    parser.add_argument("--minutes", type=float, metavar="M", help="take no longer: runs are shortened, then repetitions dropped")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="what runs guests (auto: KVM where it works)")
    add_output_arguments(parser)


class Asked(Exception):
    """Wrongly asked: told, exit code 2."""


def chosen(table, text, what):
    names = text.split(",") if text else list(table)
    for name in names:
        if name not in table:
            raise Asked(f"there is no {what} '{name}'; there are: {', '.join(table)}")
    return [one for name, one in table.items() if name in names]


def check_arguments(args):
    if args.file and args.disk != "model":
        raise Asked("--disk and --file name two disks")
    if args.scale < 1 or (args.scale != 1 and (args.file or args.disk != "model")):
        raise Asked("--scale is of the modelled disk, and 1 or more")
    if args.repetitions < 1 or (args.minutes is not None and args.minutes <= 0):
        raise Asked("--repetitions and --minutes are more than 0")
    if not netvolume.MTU_LEAST <= args.mtu <= netvolume.MTU_MOST:
        raise Asked(f"--mtu is from {netvolume.MTU_LEAST} to {netvolume.MTU_MOST}")
    if args.destroy and args.disk == "model":
        raise Asked("--destroy is of --disk /dev/X")
    if os.geteuid() != 0:
        raise Asked("it makes loop devices and mounts: it needs root")


def blockd():
    """Of the build, or as installed."""
    path = BUILD / "src" / "cmd" / "mallee-blockd"
    found = path if path.exists() else shutil.which("mallee-blockd")
    if not found:
        raise CannotMeasure(f"{path} is not built")
    return Path(found)


class Bench:
    """What sessions share."""

    def __init__(self, args, folder, undo_list, *, guests):
        self.blockd = blockd()
        self.folder = folder
        self.undo = undo_list
        self.disk = self.make_disk(args)
        self.image = guest_dd.image(BUILD, SOURCE) if guests else None
        self.accel = accel.choose(args.accel) if guests else None
        self.mtu = args.mtu

    @staticmethod
    def program(name):
        return program(name)

    def make_disk(self, args):
        if args.file:
            return disks.FileDisk(self.undo, args.file)
        if args.disk != "model":
            return disks.RealDisk(self.undo, args.disk, args.destroy)
        return disks.ModelDisk(self.undo, self.blockd, self.folder, args.scale)


# ---- the result ----

def host_facts(accel_name):
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal: +(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return {"cpu": cpu.group(1) if cpu else None, "cores": os.cpu_count(), "kernel": os.uname().release,
            "memory_mb": int(memory.group(1)) // 1024, "accel": accel_name}


def version(*command):
    if not shutil.which(str(command[0])):
        return None
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group(0) if found else None


def versions(bench):
    found = {"qemu": version("qemu-system-x86_64", "--version"), "mallee": version(bench.blockd, "--version")}
    return {name: value for name, value in found.items() if value}


def foreign(runs):
    """Over the runs alone."""
    everything = [run for several in runs.values() for run in several]
    elapsed = sum(run["elapsed_s"] for run in everything) or 1
    return {"steal_percent": round(100 * sum(run["steal_s"] for run in everything) / elapsed / (os.cpu_count() or 1), 2),
            "load": round(os.getloadavg()[0], 2), "others_cores": round(sum(run["others_s"] for run in everything) / elapsed, 2)}


def result_of(bench, args, everything, played):
    facts, study = rows.disk_facts(bench.disk, played.runs), rows.study_figures()
    found = [rows.row_of(one, work, played.runs.get((one["id"], work["id"]), []), played.empty.get((one["id"], work["id"])),
                         played.paths.get(one["id"], {}), facts, study, bench.accel or "kvm")
             for one in everything for work in played.works]
    return {"version": 1, "kind": "disk", "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "host": host_facts(bench.accel), "versions": versions(bench),
            "settings": {"disk": bench.disk.settings, "rate_mb_s": bench.disk.rate / 1e6 if bench.disk.rate else None, "scale": args.scale,
                         "repetitions": played.plan.repetitions, "seconds": round(played.plan.seconds, 1)},
            "foreign": foreign(played.runs), "rows": rows.with_ratios(found)}


# ---- the run ----

def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(args, undo_list):
    everything = chosen(configurations.BY_ID, args.rows, "configuration")
    works = chosen(workloads.BY_ID, args.workloads, "workload")
    folder = Path(tempfile.mkdtemp(prefix="mallee-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    undo_list.add("file", path=str(folder))
    possible = [one for one in everything if one["session"] and not netvolume.why_empty(one["id"])]
    bench = Bench(args, folder, undo_list, guests=any(one["vmm"] != "none" for one in possible))
    with bench.disk:
        undo_list.limit_dirty(sessions.DIRTY_BACKGROUND, sessions.DIRTY)
        plan = matrix.Plan(possible, works, args.repetitions, args.minutes)
        say(f"{bench.disk.settings}; {f'guests under {bench.accel.upper()}' if bench.accel else 'no guest'}; {len(possible)} configurations × {len(works)} workloads × "
            f"{plan.repetitions} repetitions of {plan.seconds:.1f} s: about {plan.expected_s() / 60:.0f} minutes")
        played = matrix.Matrix(bench, possible, works, plan, say)
        played.play()
        return result_of(bench, args, everything, played)


def run(args):
    try:
        check_arguments(args)
        undo.end_on_signals()
        with undo.Undo() as undo_list:
            result = measure(args, undo_list)
    except (Asked, disks.Refused) as reason:
        say(f"mallee bench disk: {reason}")
        return 2
    except CannotMeasure as reason:
        say(f"mallee bench disk: {reason}")
        return 1
    finish(explain.explained(result, BUILD, say), args)
    return 0
