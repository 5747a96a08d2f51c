# SPDX-License-Identifier: Apache-2.0
"""What a measurement makes of links and network namespaces on the host.

All of it is written down before it is made (paper.undo), and so goes again even after a kill; random letters in its names keep it
apart from what else is there.
"""
import contextlib
import os
import random
import string
import subprocess
import time
from pathlib import Path

from servers import CannotMeasure, Server

SOURCE = Path(__file__).resolve().parent.parent.parent
BUILD = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()


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


class HostNet:
    """Links, namespaces and programs of one measurement, as a context. undo: where each is written down before it is made
    (paper.undo.Undo); folder: for logs. What it makes goes at its end, or with undo, in whichever way that comes about."""

    def __init__(self, undo, folder):
        if os.geteuid() != 0:
            raise CannotMeasure("links and network namespaces are made by root only: run it with sudo")
        self.undo = undo
        self.folder = Path(folder)
        self.id = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
        self.made = []
        self.programs = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.programs.close()
        while self.made:
            self.undo.drop(self.made.pop())

    def later(self, kind, **entry):
        """Undo this at the end."""
        self.made.append(self.undo.add(kind, **entry))

    def name(self, what):
        return f"mb{self.id}{what}" # at most 15 characters

    def link(self, what, *words):
        """`ip link add NAME words…`, up."""
        name = self.name(what)
        self.later("command", command=["ip", "link", "delete", name])
        command("ip", "link", "add", name, *words)
        self.quiet(name)
        command("ip", "link", "set", name, "up")
        return name

    def tap(self, what, master, mtu=1500):
        name = self.name(what)
        self.later("command", command=["ip", "link", "delete", name])
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
        self.later("command", command=["ip", "netns", "delete", name])
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def cable(self, what, namespace, mtu=1500):
        """A veth pair into a namespace; returns the host's end. The other is `eth0` there."""
        name, other = self.name(what), self.name(what + "p")
        self.later("command", command=["ip", "link", "delete", name])
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
        self.later("command", command=["modprobe", "-r", name])
        command("modprobe", "-q", name)

    def subnet(self):
        """The first three numbers of a /24 that this host does not know, of those set aside for measurements (RFC 2544)."""
        known = command("ip", "-4", "route", "show", "table", "all")
        for _ in range(500):
            net = f"198.{random.choice((18, 19))}.{random.randrange(1, 255)}"
            if f"{net}." not in known:
                return net
        raise CannotMeasure("no free subnet in 198.18.0.0/15")

    def start(self, name, words, log):
        return self.programs.enter_context(Companion(name, words, self.folder / log))
