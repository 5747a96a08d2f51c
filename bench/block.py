#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the block engine against what else serves blocks, and say what was compared with what.

Each row runs ours and its peers in turn (A, B, A, B, …) on one file of this machine's disk, with one and the same client, and
tells medians, the ratio of the pairs, their spread, the servers' CPU per operation (utime + stime of the process from /proc), and
how many cores others kept busy meanwhile: with more than a few tenths the rates tell little. A peer that can be run in several
ways is first tried in each, and measured in its fastest. In the O_DIRECT row, where that decides, everyone is tried anywhere and on
one CPU, ours and fio too. Writes BUILD/bench/block.json, and every single run into BUILD/bench/block-runs.json.

The exit code is 1 when a row could not be measured. A target that was missed is said in the table and is no error.
"""
import argparse
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import guest as guest_dd
from servers import CannotMeasure, Server, busy_s

SOURCE = Path(__file__).resolve().parent.parent
BUILD = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()
BLOCKD = BUILD / "src" / "cmd" / "mallee-blockd"
MIB = 1 << 20


def say(text=""):
    print(text, flush=True)


class Bench:
    """Where things are and how long a run takes."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.file = Path(args.dir or folder) / "bench-disk.raw"
        self.count = 0

    @contextlib.contextmanager
    def short_runs(self):
        """Eight times as many, a quarter as long."""
        args = self.args
        self.args = argparse.Namespace(**{**vars(args), "pairs": args.pairs * 8, "seconds": max(1, args.seconds // 4)})
        try:
            yield
        finally:
            self.args = args

    def path(self, name):
        self.count += 1
        return str(self.folder / f"{self.count}-{name}")

    def shm(self, name):
        """A place on tmpfs; whoever uses it removes it."""
        return Path("/dev/shm") / f"mallee-bench-{os.getpid()}-{name}"

    def blockd(self, front, *, direct, filters=(), name="ours", file=None):
        sock = self.path("s")
        command = [BLOCKD, "--name", "bench", "--back", f"file:path={file or self.file},direct={'on' if direct else 'off'}"]
        for one in filters:
            command += ["--filter", one]
        server = Server(name, command + ["--front", f"{front}:socket={sock}"], sock, self.path("log"))
        server.sock = sock
        return server

    def storage_daemon(self, *, direct, aio, iothread=False):
        sock = self.path("s")
        server = Server(f"qemu-storage-daemon (aio={aio}{', iothread' if iothread else ''})", [
            "qemu-storage-daemon", "--object", "iothread,id=thread", "--blockdev",
            f"driver=file,node-name=disk,filename={self.file},aio={aio},cache.direct={'on' if direct else 'off'}",
            "--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={sock},writable=on"
            + (",iothread=thread" if iothread else "")],
            sock, self.path("log"))
        server.sock = sock
        return server

    def qemu_nbd(self, *, aio):
        sock = self.path("s")
        server = Server(f"qemu-nbd (aio={aio})", ["qemu-nbd", "--persistent", "--shared=16", "--format=raw", "--cache=writeback",
                                                  f"--aio={aio}", f"--socket={sock}", self.file], sock, self.path("log"))
        server.sock = sock
        return server

    def nbdkit(self, *, threads):
        """As it comes. Of long reads it does about twice as many when the C library happens to keep the memory of its buffers (or is
        told to, by MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_) than when it gives it back after each: it is seen to do
        either, in one run after the other."""
        sock = self.path("s")
        server = Server(f"nbdkit ({threads} threads)", ["nbdkit", "--foreground", "--unix", sock, "--threads", threads, "file", self.file],
                        sock, self.path("log"))
        server.sock = sock
        return server

    def make_file(self):
        """Written through, not sparse: holes and unwritten extents are another thing to read."""
        size = self.args.size * MIB
        if self.file.exists() and self.file.stat().st_size == size:
            return
        say(f"writing {self.args.size} MiB into {self.file} …")
        block = os.urandom(MIB)
        with open(self.file, "wb") as f:
            for _ in range(self.args.size):
                f.write(block)
            f.flush()
            os.fsync(f.fileno())

    def twin(self, which):
        """A copy of it: two volumes at once want files that came about in the same way, down to the page cache."""
        path = self.file.with_suffix(f".{which}")
        if not path.exists():
            shutil.copyfile(self.file, path)
        self.warm(path)
        return path

    def warm(self, file=None):
        """All of it in the page cache."""
        with open(file or self.file, "rb") as f:
            while f.read(16 * MIB):
                pass

    def cool(self):
        """None of it in the page cache."""
        with open(self.file, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- clients: each answers {"iops", "ops", "seconds"} ----

def run_json(command, seconds):
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds + 60)
    except FileNotFoundError:
        raise CannotMeasure(f"{command[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise CannotMeasure(f"{command[0]} hung") from None
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        raise CannotMeasure(f"{command[0]}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout[start:])


def fio(bench, engine, target, *, rw, block, depth):
    args = ["fio", "--name=run", f"--ioengine={engine}", *target, f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", "--time_based",
            f"--runtime={bench.args.seconds}", f"--size={bench.args.size}M", "--randrepeat=0", "--norandommap", "--output-format=json"]
    job = run_json(args, bench.args.seconds)["jobs"][0]
    if job["error"]:
        raise CannotMeasure(f"fio: error {job['error']}")
    ops, seconds = job["read"]["total_ios"], job["read"]["runtime"] / 1000
    return {"iops": ops / seconds, "ops": ops, "seconds": seconds,
            "client_cpu_s": (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000}


def master(program, server, seconds, **options):
    """The command line of a client of our own."""
    path = BUILD / "bench" / program
    if not path.exists():
        raise CannotMeasure(f"{path} is not built")
    return [path, "--socket", server.sock, "--seconds", seconds] + [w for name, value in options.items() for w in (f"--{name}", value)]


def master_run(bench, program, server, **options):
    result = run_json(master(program, server, bench.args.seconds, **options), bench.args.seconds)
    if result["errors"]:
        raise CannotMeasure(f"{program}: {result['errors']} requests failed")
    return {"iops": result["iops"], "ops": result["ops"], "seconds": result["seconds"], "latency_us": result["latency_us"],
            "client_cpu_s": result["own_cpu_us_per_op"] * result["ops"] / 1e6}


def vhost(bench, server, **options):
    """No ramp: the server's CPU is counted over all of the run."""
    return master_run(bench, "vhost-master", server, ramp=0, **options)


def nbd(bench, server, *, access, bs, depth):
    """Our own client, which leaves the server most of the machine; or fio's engine, which needs more CPU than the servers do."""
    if bench.args.nbd_client == "fio":
        return fio(bench, "nbd", [f"--uri=nbd+unix:///?socket={server.sock}"], rw="randread" if access == "random" else "read", block=bs,
                   depth=depth)
    return master_run(bench, "nbd-master", server, access=access, bs=bs, depth=depth)


# ---- runs, pairs, rows ----

class Side:
    """One of those compared: how it is measured, and what came of it."""

    def __init__(self, name, measure):
        self.name = name
        self.measure = measure  # () -> {"iops", "ops", "seconds", "cpu_s"}
        self.runs = []

    def run(self):
        busy, begin = busy_s()[0], time.monotonic()
        result = self.measure()
        own = result["cpu_s"] + (result.get("client_cpu_s", 0) if result["cpu_s"] != result.get("client_cpu_s") else 0)
        result["others"] = max(0.0, (busy_s()[0] - busy - own) / (time.monotonic() - begin))
        result["cpu_us_per_op"] = result["cpu_s"] / result["ops"] * 1e6
        self.runs.append(result)
        return result

    def median(self, key):
        return statistics.median(run[key] for run in self.runs)


def served(server, client):
    """A side whose server runs on and is asked by client(server)."""
    def measure():
        before = server.cpu_s()
        result = client(server)
        result["cpu_s"] = server.cpu_s() - before
        return result
    return Side(server.name, measure)


def fastest(variants, client, what, rounds=1):
    """Of the ways to run a server: that with the most operations in runs of its own, by their median."""
    rates = {make: [] for make in variants}
    names = {}
    for _ in range(rounds):
        for make in list(rates):
            with make() as server:
                names[make] = server.name
                try:
                    rates[make].append(client(server)["iops"])
                except CannotMeasure as reason:
                    say(f"    {server.name}: {reason}")
                    del rates[make]
    medians = {make: statistics.median(runs) for make, runs in rates.items()}
    for make, iops in medians.items():
        say(f"    {names[make]}: {iops:,.0f} a second, tried for {what}")
    if not medians:
        raise CannotMeasure("the peer could not be measured in any way")
    return max(medians, key=medians.get)


# ---- where they run ----

def places():
    """Sets of CPUs to try: all of them, and one alone. Of many, two stand for the rest: on one of two a disk's interrupts may come,
    or may not."""
    cpus = sorted(os.sched_getaffinity(0))
    return [set(cpus)] + ([{cpus[0]}, {cpus[-1]}] if len(cpus) > 1 else [])


def place_text(cpus):
    return f", on CPU {min(cpus)}" if len(cpus) == 1 and len(os.sched_getaffinity(0)) > 1 else ""


@contextlib.contextmanager
def placed(cpus):
    """What is started inside runs on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def started_on(cpus, make):
    """A server that runs on these CPUs, and says so."""
    with contextlib.ExitStack() as stack:
        with placed(cpus):
            server = stack.enter_context(make())
        server.name += place_text(cpus)
        server.cpus = cpus
        yield server


def in_places(make):
    """The ways to run a server that differ in where it runs."""
    return [functools.partial(started_on, cpus, make) for cpus in places()]


def play(bench, sides, scale, unit):
    """The runs in turn, with progress."""
    for turn in range(bench.args.pairs):
        shown = []
        for side in sides if turn % 2 == 0 else sides[::-1]:
            run = side.run()
            shown.append((sides.index(side), f"{side.name} {run['iops'] * scale:,.0f} {unit}, {run['cpu_us_per_op']:.2f} µs"))
        say(f"    {turn + 1}/{bench.args.pairs}  " + "   ".join(text for _, text in sorted(shown)))


def spread(values):
    """Half the distance between the extremes, relative to the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def compare(name, ours, peer, unit, scale, *, at_least=None, cpu_at_most=None):
    """The row of two sides. Pairs are compared run by run: what a busy machine does to both cancels out."""
    ratios = [a["iops"] / b["iops"] for a, b in zip(ours.runs, peer.runs)]
    cpu = [a["cpu_us_per_op"] / b["cpu_us_per_op"] for a, b in zip(ours.runs, peer.runs) if b["cpu_us_per_op"]]
    ratio, cpu_ratio = statistics.median(ratios), statistics.median(cpu) if cpu else None
    targets, passed = [], True
    if at_least is not None:
        targets.append(f"{at_least:g}x")
        passed = passed and ratio >= at_least
    if cpu_at_most is not None:
        targets.append(f"CPU {cpu_at_most:g}x")
        passed = passed and cpu_ratio is not None and cpu_ratio <= cpu_at_most
    return {"name": name, "unit": unit, "ours": ours.median("iops") * scale, "peer": peer.median("iops") * scale, "peer_name": peer.name,
            "ratio": ratio, "cpu_ratio": cpu_ratio, "target": ", ".join(targets), "pass": passed, "spread": spread(ratios),
            "others": statistics.median(run["others"] for run in ours.runs + peer.runs),
            "ours_cpu_us_per_op": ours.median("cpu_us_per_op"), "peer_cpu_us_per_op": peer.median("cpu_us_per_op"),
            "runs": {"ours": ours.runs, "peer": peer.runs}}


def storage_daemons(bench, *, direct, aio):
    """In its main loop, and in an iothread, which polls."""
    return [lambda a=a, t=t: bench.storage_daemon(direct=direct, aio=a, iothread=t) for a in aio for t in (False, True)]


def row_vhost_cached(bench):
    name = "vhost-user-blk, cached, 4k random read, QD32, 1 queue"
    bench.warm()

    def client(server):
        return vhost(bench, server, depth=32)
    peer = fastest(storage_daemons(bench, direct=False, aio=("threads", "io_uring")), client, "the cached row")
    with bench.blockd("vhost-user", direct=False) as a, peer() as b:
        ours, theirs = served(a, client), served(b, client)
        play(bench, [ours, theirs], 1, "IOPS")
    return [compare(name, ours, theirs, "IOPS", 1, at_least=2.0, cpu_at_most=0.5)]


def row_vhost_direct(bench):
    """A small virtual machine takes tens of µs to wake its other CPU, and its disk does nothing meanwhile: whether the scheduler
    leaves a client beside its server or not makes a fifth, and it may change its mind once in some seconds. So each side is tried in
    several places, and the runs are many and short."""
    name = "vhost-user-blk, O_DIRECT disk, 4k random read, QD32"
    bench.cool()

    def client(server):
        with placed(server.cpus):
            return vhost(bench, server, depth=32)

    def host(place):
        with placed(place.cpus):
            result = fio(bench, "io_uring", [f"--filename={bench.file}", "--direct=1"], rw="randread", block="4k", depth=32)
        result["cpu_s"] = result["client_cpu_s"]
        return result

    @contextlib.contextmanager
    def no_server():
        yield argparse.Namespace(name="fio on the host (io_uring)")

    def best(makes, run):
        return fastest([way for make in makes for way in in_places(make)], run, "the O_DIRECT row", rounds=3)

    with bench.short_runs():
        mine = best([lambda: bench.blockd("vhost-user", direct=True)], client)
        host_way = best([no_server], host)
        peer = best(storage_daemons(bench, direct=True, aio=("native", "io_uring")), client)
        with mine() as a, host_way() as place, peer() as b:
            ours, fio_side, theirs = served(a, client), Side(place.name, lambda: host(place)), served(b, client)
            play(bench, [ours, fio_side, theirs], 1, "IOPS")
    rows = [compare(name, ours, fio_side, "IOPS", 1, at_least=0.95),
            compare(f"{name}: CPU", ours, theirs, "IOPS", 1, cpu_at_most=0.6)]
    for row in rows:
        row["ours_place"] = place_text(a.cpus)
    return rows


def rows_nbd(bench, name, unit, scale, load, qemu_target, nbdkit_target):
    bench.warm()

    def client(server):
        return nbd(bench, server, **load)
    qemu = fastest([lambda a=a: bench.qemu_nbd(aio=a) for a in ("threads", "io_uring")], client, "this row")
    kit = fastest([lambda t=t: bench.nbdkit(threads=t) for t in (16, 4, 1)], client, "this row")
    with bench.blockd("nbd", direct=False) as a, qemu() as b, kit() as c:
        ours, theirs, others = served(a, client), served(b, client), served(c, client)
        play(bench, [ours, theirs, others], scale, unit)
    return [compare(name, ours, theirs, unit, scale, at_least=qemu_target),
            compare(name, ours, others, unit, scale, at_least=nbdkit_target)]


def row_nbd_random(bench):
    return rows_nbd(bench, "NBD, unix socket, cached, 4k random read, QD32", "IOPS", 1, {"access": "random", "bs": 4096, "depth": 32}, 2.0, 1.3)


def row_nbd_sequential(bench):
    return rows_nbd(bench, "NBD, unix socket, cached, 1M sequential read, QD8", "MB/s", MIB / 1e6, {"access": "sequential", "bs": MIB, "depth": 8},
                    2.5, 1.2)


CRYPT_LOADS = [("4k random read, QD32", {"rw": "read", "access": "random", "bs": 4096, "depth": 32}),
               ("4k random write, QD32", {"rw": "write", "access": "random", "bs": 4096, "depth": 32}),
               ("256k sequential read, QD4", {"rw": "read", "access": "sequential", "bs": 256 << 10, "depth": 4}),
               ("256k sequential write, QD4", {"rw": "write", "access": "sequential", "bs": 256 << 10, "depth": 4})]


def row_crypt(bench):
    """What encryption costs: the same stack with it and without, out of the page cache, where it weighs most."""
    key = bench.folder / "bench-key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)
    rows = []
    for name, load in CRYPT_LOADS:
        with bench.blockd("vhost-user", direct=False, filters=[f"crypt:key-file={key}"], name="encrypted", file=bench.twin("a")) as a, \
                bench.blockd("vhost-user", direct=False, name="plain", file=bench.twin("b")) as b:
            ours, theirs = (served(server, lambda s, o=load: vhost(bench, s, **o)) for server in (a, b))
            play(bench, [ours, theirs], load["bs"] / 1e6, "MB/s")
        row = compare(f"encrypted, cached, {name}", ours, theirs, "MB/s", load["bs"] / 1e6)
        more = row["ours_cpu_us_per_op"] - row["peer_cpu_us_per_op"]
        say(f"    {name}: {more:+.2f} µs of CPU a request, {more * 1000 / load['bs']:+.3f} ns a byte")
        rows.append(row)
    return rows


GUEST_RATE = 110_000_000
GUEST_MIB, GUEST_PAIRS = 512, 3  # 5 s of the disk at that rate, of which the start takes its part; 15 s at a third
# Job, of what, at least: of the host's dd on the same disk, or of the disk's own rate.
GUEST_TARGETS = {"buffered write": ("host", 0.92), "buffered read": ("host", 0.97), "direct read": ("disk", 0.97), "direct write": ("disk", 0.90)}


def guest_filters(bench):
    """A volume's, as the storage controller gives them, but for what has nothing to do in a single volume's run (snap, cow)."""
    return [f"coalesce:buffer={bench.shm('guest')}", "readahead"]


def guest_result(name, job, rate, host, inside, against, target):
    """A row: bytes a second as "iops" of one byte each, so that the rest of this program need not know."""
    base = host if against == "host" else [rate] * len(inside)
    ratios = [a / b for a, b in zip(inside, base)]
    ratio = statistics.median(ratios)
    return {"name": f"{name}: {job}", "unit": "MB/s", "ours": statistics.median(inside) / 1e6, "peer": statistics.median(base) / 1e6,
            "peer_name": "the host's dd" if against == "host" else "the disk's rate", "ratio": ratio, "cpu_ratio": None,
            "target": f"{target:g}x", "pass": ratio >= target, "spread": spread(ratios), "runs": {"ours": inside, "host": host}}


def guest_rows(bench, name, rate, targets):
    image = guest_dd.image(BUILD, SOURCE)
    say(f"    a guest under TCG with {guest_dd.VCPUS} virtual processors, on a disk of {rate / 1e6:.0f} MB/s")
    folder = bench.folder / f"guest-{rate}"
    folder.mkdir()
    rows = []
    with guest_dd.Disk(BLOCKD, folder, rate, "1G") as disk, guest_dd.volume(BLOCKD, disk, folder, guest_filters(bench)) as server, \
            guest_dd.Guest(image, folder / "guest.log", guest_dd.vhost_user_disk(server.sock)) as inside:
        for job, (against, target) in targets.items():
            host_runs, guest_runs = guest_dd.compare_on(disk, inside, job, min(bench.args.pairs, GUEST_PAIRS), GUEST_MIB, say)
            rows.append(guest_result(name, job, rate, host_runs, guest_runs, against, target))
    return rows


def row_guest(bench):
    """Unmodified dd bs=64k in a guest, on the disk model: at its rate, and at a third, where the emulated CPU is out of the way."""
    rows = guest_rows(bench, f"guest's dd, disk of {GUEST_RATE / 1e6:.0f} MB/s", GUEST_RATE, GUEST_TARGETS)
    third = {job: (against, 0.98) for job, (against, _) in GUEST_TARGETS.items()}
    return rows + guest_rows(bench, f"guest's dd, disk of {GUEST_RATE / 3e6:.0f} MB/s", GUEST_RATE // 3, third)


# ---- idle ----

@contextlib.contextmanager
def stopped_master(server):
    """A VMM whose guest reads 64k in sequence for a while, and then, attached, asks for nothing: it is stopped in its tracks."""
    with subprocess.Popen([str(word) for word in master("vhost-master", server, 600, rw="read", access="sequential", bs=65536, depth=1)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(2)
            if process.poll() is not None:
                raise CannotMeasure("vhost-master ended")
            process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.kill()


def anonymous_bytes(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous: +(\d+) kB", text, re.M).group(1)) * 1024


def exact_cpu_ms(pid):
    """CPU of all its threads as the scheduler counts it: a single wake-up may cost a whole tick of the clock in /proc/PID/stat."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6


def full_stack(bench):
    """All that a volume may have above its file. cow: a clone that is not being filled, which stays as it is."""
    source = bench.folder / "source.raw"
    with open(source, "wb") as f:
        f.truncate(bench.args.size * MIB)
    return ["throttle:iops=1000000", f"coalesce:buffer={bench.shm('idle')}", "readahead", f"snap:map={bench.path('map')}",
            f"cow:map={bench.path('bits')},source=file:path={source},fill=off"]


IDLE_CPU_MS = 1 # in 10 s: one wake-up, of whatever reason


def row_idle(bench):
    name = "an idle volume with its full stack, attached by vhost-user"
    filters = full_stack(bench)
    buffer = bench.shm("idle")
    try:
        with bench.blockd("vhost-user", direct=True, filters=filters) as server:
            # It has worked before: what it took then and keeps counts.
            vhost(bench, server, rw="write", bs=4096, depth=16)
            with stopped_master(server):
                say(f"    idle for 10 s after writes and reads, in its stack: {', '.join(filters)} …")
                time.sleep(10)
                own = anonymous_bytes(server.process.pid)
                tmpfs = buffer.stat().st_blocks * 512 if buffer.exists() else 0
                before = exact_cpu_ms(server.process.pid)
                time.sleep(10)
                cpu_ms = exact_cpu_ms(server.process.pid) - before
    finally:
        buffer.unlink(missing_ok=True)
    used = (own + tmpfs) / 1e6
    run = {"anonymous_bytes": own, "tmpfs_bytes": tmpfs, "cpu_ms_in_10_s": cpu_ms, "filters": filters}
    say(f"    {used:.2f} MB ({own / 1e6:.2f} anonymous, {tmpfs / 1e6:.2f} tmpfs), {cpu_ms:.2f} ms of CPU in 10 s")
    return [{"name": name, "unit": "MB", "ours": used, "peer": None, "peer_name": None, "ratio": None, "cpu_ratio": None,
             "target": "4 MB, no CPU", "pass": used <= 4 and cpu_ms <= IDLE_CPU_MS, "spread": 0.0, "runs": {"ours": [run]}}]


ROWS = {
    "vhost-cached": row_vhost_cached,
    "vhost-direct": row_vhost_direct,
    "nbd-random": row_nbd_random,
    "nbd-sequential": row_nbd_sequential,
    "guest": row_guest,
    "crypt": row_crypt,
    "idle": row_idle,
}


# ---- the report ----

def number(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def print_table(results):
    table = [("", "ours", "peer", "", "ratio", "CPU ratio", "spread", "others", "target", "")]
    for r in results:
        table.append((r["name"], f"{number(r['ours'])} {r['unit']}{r.get('ours_place', '')}", number(r["peer"]), r["peer_name"] or "",
                      f"{r['ratio']:.2f}" if r["ratio"] else "-", f"{r['cpu_ratio']:.2f}" if r["cpu_ratio"] is not None else "-",
                      f"±{r['spread'] * 100:.0f} %", f"{r['others']:.1f}" if "others" in r else "-", r["target"],
                      "NOT MEASURED" if r["pass"] is None else "ok" if r["pass"] else "missed"))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    say()
    for line in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def describe_machine():
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    load = os.getloadavg()[0]
    say(f"{os.cpu_count()} × {model.group(1) if model else 'CPU'}, Linux {os.uname().release}, load {load:.1f}")
    if load > 0.5:
        say("this machine is doing other things: trust the ratios, not the rates")
    for program in ("fio", "qemu-storage-daemon", "qemu-nbd", "nbdkit"):
        if not shutil.which(program):
            say(f"{program} is missing: `make bench-block` installs it")
            continue
        out = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip().splitlines()
        say(f"  {out[0] if out else program}")


def not_measured(key, reason):
    return {"name": key, "unit": "", "ours": None, "peer": None, "peer_name": None, "ratio": None, "cpu_ratio": None, "target": "",
            "pass": None, "spread": 0.0, "error": reason, "runs": {}}


def measure_row(bench, key, results):
    """0, or 1 when it could not be measured."""
    say(f"\n{key}: {args_text(bench)}")
    try:
        results += ROWS[key](bench)
        return 0
    except CannotMeasure as reason:
        say(f"    not measured: {reason}")
        results.append(not_measured(key, str(reason)))
        return 1


def args_text(bench):
    return f"{bench.args.pairs} runs each in turn, {bench.args.seconds} s a run, on {bench.file} of {bench.args.size} MiB"


def write_results(out, results):
    runs = {f"{r['name']} | {r['peer_name']}": r.pop("runs") for r in results}
    (out / "block.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    (out / "block-runs.json").write_text(json.dumps(runs, indent=2, ensure_ascii=False) + "\n")
    say(f"\nwritten: {out}/block.json; every run: {out}/block-runs.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of a run (4)")
    parser.add_argument("--size", type=int, default=512, metavar="MIB", help="of the file (512)")
    parser.add_argument("--nbd-client", choices=("nbd-master", "fio"), default="nbd-master", help="who asks the NBD servers (nbd-master)")
    parser.add_argument("--dir", help="folder of the file; its disk is the one measured (BUILD/bench)")
    args = parser.parse_args()
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]}")
    out = BUILD / "bench"
    work = out / "run"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    bench = Bench(args, work)
    describe_machine()
    results, failed = [], 0
    try:
        bench.make_file()
        for key in args.rows or ROWS:
            failed += measure_row(bench, key, results)
    finally:
        bench.file.unlink(missing_ok=True)
        for which in "ab":
            bench.file.with_suffix(f".{which}").unlink(missing_ok=True)
    print_table(results)
    write_results(out, results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
