# SPDX-License-Identifier: Apache-2.0
"""All of the study's experiments, on the modelled disk, within a time: build/bench/paper.json, and the tables of docs/paper.md.

Each experiment runs as a process of its own, so that one that fails or is stopped does not take the other's figures along. Exit code:
0 all done, 1 an experiment failed (what the others found is kept), 2 asked wrongly.
"""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paper import doc, store
from paper.report import write_outputs
from paper.result import BadResult, check, read, write_json
from paper.table import print_table

ENTRY = Path(__file__).resolve().parent.parent / "mallee_bench.py"
MINUTES = 29            # for both, of the thirty that `make bench-paper` promises
NET_SHARE = 0.15        # of the time; disks have more rows
NET_REPETITIONS = 3
TCG_SCALE = 3           # the modelled disk is slowed so that an emulated processor does not pose as a slow disk
GRACE_S = 60            # beyond its time, before an experiment is stopped
CLEAN_UP_S = 120        # for putting the machine back as it was, then


def accelerator(build):
    """What guests will run on, as the node controller's probe finds it."""
    try:
        done = subprocess.run([build / "bench" / "accel-probe"], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as e:
        print(f"mallee bench paper: {e}: taken for TCG", file=sys.stderr)
        return "tcg"
    return done.stdout.partition("\n")[0]


def disk_words(minutes, accel):
    return ["--minutes", f"{minutes:.1f}", "--scale", str(1 if accel == "kvm" else TCG_SCALE)]


def net_words(minutes):
    return ["--minutes", f"{minutes:.1f}", "--repetitions", str(NET_REPETITIONS)]


def run_one(name, minutes, path, words):
    """The experiment's result, or None. It is asked to end (and to put the machine back) when it takes much longer than it may."""
    path.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, str(ENTRY), name, "--json", str(path), *words])
    try:
        code = process.wait(timeout=minutes * 60 + GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as e:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=CLEAN_UP_S)
        if isinstance(e, KeyboardInterrupt):
            raise
        print(f"mallee bench {name}: took longer than its {minutes:.0f} minutes and was stopped", file=sys.stderr)
    if not path.exists():
        print(f"mallee bench {name}: left no result (exit code {code})", file=sys.stderr)
        return None
    return read(path)


def worst(results):
    """Of what others did to the machine meanwhile: the larger of each figure."""
    found = {}
    for result in results:
        for name, value in (result.get("foreign") or {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[name] = max(value, found.get(name, value))
    return found


def merge(results):
    """One result with the rows of all. The first one's settings stand by themselves, the others' under their kind."""
    first = results[0]
    merged = {"version": first["version"], "kind": "paper", "date": first.get("date"), "host": first.get("host") or {}, "versions": {},
              "settings": dict(first.get("settings") or {}), "foreign": worst(results), "rows": [row for result in results for row in result["rows"]]}
    for result in results:
        merged["versions"].update(result.get("versions") or {})
    for result in results[1:]:
        merged["settings"][result["kind"]] = result.get("settings") or {}
    return check(merged)


def add_arguments(parser):
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all of it ({MINUTES})")
    parser.add_argument("--out", metavar="FOLDER", help="of paper.json (build/bench)")
    parser.add_argument("--doc", metavar="FILE", default=str(doc.PAPER_MD), help="whose tables are made anew (docs/paper.md)")
    parser.add_argument("--html", metavar="FILE", help="write the report, too")


def run(args):
    if not args.minutes > 0:
        print("mallee bench paper: --minutes is more than 0", file=sys.stderr)
        return 2
    build = (store.SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()
    out = Path(args.out) if args.out else build / "bench"
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        for_disks = args.minutes * (1 - NET_SHARE)
        results = [run_one("disk", for_disks, out / "paper-disk.json", disk_words(for_disks, accelerator(build)))]
        # What the disks' experiment left over is the network's.
        left = max(1, args.minutes - (time.monotonic() - start) / 60)
        results.append(run_one("net", left, out / "paper-net.json", net_words(left)))
        found = [result for result in results if result]
        if not found:
            return 1
        merged = merge(found)
        write_json(merged, out / "paper.json")
        print_table(merged)
        print(f"\nwritten: {out / 'paper.json'}, after {(time.monotonic() - start) / 60:.1f} minutes; kept: {store.keep(merged)}")
        write_outputs(merged, args, print)
        if os.path.exists(args.doc):
            doc.update(args.doc, merged)
            print(f"tables of {args.doc}: made anew")
    except (BadResult, OSError) as e:
        print(f"mallee bench paper: {e}", file=sys.stderr)
        return 1
    return 0 if len(found) == len(results) else 1
