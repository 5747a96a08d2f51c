# SPDX-License-Identifier: Apache-2.0
"""What a measurement makes of links and network namespaces on the host, and that all of it goes again.

Whatever is made is first written down in /run/mallee-bench/ID/record.json, then made; ID is also in its name. close() takes it
away; after a kill the next HostNet does. A run holds the lock in its folder, and so does what has to end with it (net-port takes its
own network away when its standard input closes): who gets the lock finds the run over. Programs started here are killed by the
kernel when this process ends, however it ends.
"""
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import string
import subprocess
import time
from pathlib import Path

from servers import CannotMeasure, Server

SOURCE = Path(__file__).resolve().parent.parent.parent
BUILD = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()
ROOT = Path(os.environ.get("MALLEE_BENCH_RUN", "/run/mallee-bench"))
UNDO_S = 20


def program(name):
    """One of bench's own: of the build, or beside these scripts where they are installed."""
    for path in (BUILD / "bench" / name, Path(__file__).resolve().parent.parent / name):
        if path.is_file():
            return path
    raise CannotMeasure(f"{name} is not built: ninja -C {BUILD} bench/{name}")


class Companion(Server):
    """A server of which a line in its log tells that it is ready."""

    def __init__(self, name, words, log):
        super().__init__(name, words, None, log)

    def wait_for(self, text, seconds=10):
        """Until its log has that text."""
        deadline = time.monotonic() + seconds
        while text not in Path(self.log).read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = Path(self.log).read_text(errors="replace").strip()[-300:]
                raise CannotMeasure(f"{self.name} did not start: {said or 'it said nothing'}")
            time.sleep(0.02)
        return self


def command(*words):
    """Run to its end, or CannotMeasure with what it said."""
    words = [str(word) for word in words]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotMeasure(f"{words[0]} is missing") from None
    if done.returncode:
        raise CannotMeasure(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def quietly(*words):
    """Undo: what is gone already is no error."""
    subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, check=False)


class Record:
    """What was made, on a disk before it is made."""

    def __init__(self, folder):
        self.path = folder / "record.json"
        self.made = {"links": [], "namespaces": [], "ports": [], "sysctls": {}, "tables": [], "modules": []}

    @classmethod
    def read(cls, folder):
        record = cls(folder)
        with contextlib.suppress(OSError, ValueError):
            record.made.update(json.loads(record.path.read_text()))
        return record

    def save(self):
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.made))
        beside.rename(self.path)

    def add(self, kind, name):
        self.made[kind].append(name)
        self.save()

    def undo(self):
        """Links before namespaces: one end of a cable takes the other away, also in a namespace that somebody still holds."""
        for folder in self.made["ports"]:
            with contextlib.suppress(CannotMeasure):
                quietly(program("net-port"), "--dir", folder, "--uninstall")
        for table in self.made["tables"]:
            quietly("nft", "delete", "table", *table.split())
        for link in reversed(self.made["links"]):
            quietly("ip", "link", "delete", link)
        for module in self.made["modules"]:
            quietly("modprobe", "-r", module)
        for namespace in self.made["namespaces"]:
            quietly("ip", "netns", "delete", namespace)
        for path, value in self.made["sysctls"].items():
            with contextlib.suppress(OSError):
                Path(path).write_text(value)


def lock(folder, wait_s=0):
    """The lock's descriptor, or None when somebody else has it."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(0.05)


def owner_lives(folder):
    try:
        pid = int((folder / "pid").read_text())
        os.kill(pid, 0)
        return True
    except (OSError, ValueError):
        return False


def sweep():
    """Take away what runs left that were killed; what is in the hands of one that goes on is left."""
    for folder in sorted(ROOT.glob("*")) if ROOT.is_dir() else []:
        if not folder.is_dir() or owner_lives(folder):
            continue
        held = lock(folder, UNDO_S)
        if held is None:
            continue
        Record.read(folder).undo()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


class HostNet:
    """Use as a context. name("tap") is a link's name of this run's own."""

    def __init__(self):
        if os.geteuid() != 0:
            raise CannotMeasure("links and network namespaces are made by root only: run it with sudo")
        sweep()
        ROOT.mkdir(mode=0o711, parents=True, exist_ok=True)
        while True:
            self.id = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
            self.folder = ROOT / self.id
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o711)
                break
        (self.folder / "pid").write_text(str(os.getpid()))
        self.lock = lock(self.folder)
        self.record = Record(self.folder)
        self.record.save()
        self.companions = contextlib.ExitStack()
        self.nets = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with held_signals():
            self.companions.close()
            self.record.undo()
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self.lock)
            with contextlib.suppress(OSError):
                ROOT.rmdir() # the last one

    def name(self, what):
        return f"mb{self.id}{what}" # at most 15 characters

    def link(self, what, *words):
        """`ip link add NAME words…`, up."""
        name = self.name(what)
        self.record.add("links", name)
        command("ip", "link", "add", name, *words)
        self.quiet(name)
        command("ip", "link", "set", name, "up")
        return name

    def tap(self, what, master, mtu=1500):
        name = self.name(what)
        self.record.add("links", name)
        command("ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr")
        self.quiet(name)
        command("ip", "link", "set", name, "mtu", mtu, "master", master, "up")
        return name

    def quiet(self, name):
        """No IPv6 on it: nothing but what is measured."""
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")

    def namespace(self, what):
        name = f"mallee-bench-{self.id}-{what}"
        self.record.add("namespaces", name)
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def cable(self, what, namespace, mtu=1500):
        """A veth pair into a namespace; returns the host's end. The other is `eth0` there."""
        name, other = self.name(what), self.name(what + "p")
        self.record.add("links", name)
        command("ip", "link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", other, "mtu", mtu)
        self.quiet(name)
        command("ip", "link", "set", other, "netns", namespace, "name", "eth0")
        command("ip", "-n", namespace, "link", "set", "eth0", "up")
        command("ip", "link", "set", name, "up")
        return name

    def bridge(self, what, mtu=1500, address=None):
        """Without spanning tree, and without delay when a port comes up."""
        name = self.link(what, "mtu", mtu, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        if address:
            command("ip", "address", "add", address, "dev", name)
        return name

    def module(self, name):
        """Loaded, if it is not there already, and then unloaded at the end. CannotMeasure when this kernel has none."""
        if Path(f"/sys/module/{name}").exists():
            return
        command("modprobe", "-q", name)
        self.record.add("modules", name)

    def sysctl(self, path, value):
        path = Path("/proc/sys") / path
        self.record.made["sysctls"].setdefault(str(path), path.read_text().strip())
        self.record.save()
        path.write_text(value)

    def subnet(self):
        """The first three numbers of a /24 that this host does not know, of those set aside for measurements (RFC 2544)."""
        known = command("ip", "-4", "route", "show", "table", "all")
        while True:
            self.nets += 1
            if self.nets > 500:
                raise CannotMeasure("no free subnet in 198.18.0.0/15")
            net = f"198.{random.choice((18, 19))}.{random.randrange(1, 255)}"
            if f"{net}." not in known:
                return net

    def start(self, name, words, log):
        return self.companions.enter_context(Companion(name, words, self.folder / log))


@contextlib.contextmanager
def held_signals():
    """Undoing is not interrupted; what came meanwhile comes afterwards."""
    wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def ending_by_signals():
    """SIGTERM and SIGHUP end a run as Ctrl-C does: everything is undone."""
    def interrupt(signo, frame):
        raise KeyboardInterrupt

    before = {signo: signal.signal(signo, interrupt) for signo in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signo, handler in before.items():
            signal.signal(signo, handler)
