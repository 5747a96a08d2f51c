# SPDX-License-Identifier: Apache-2.0
"""What is measured between, on the network: who connects to whom.

A path is made as a context and then `run`s a workload: from the guest (or, in the rows `none`, from the host) to the own host or to
another one. The other host is a namespace behind a cable, or --peer. The guests' packets to it are routed through the host: no NIC of
the host's is put on a bridge.
"""
import contextlib
import json
import os
import subprocess
from pathlib import Path

from paper import counters
from paper.hostnet import Companion, HostNet, command, program
from paper.netguest import NetGuest, vhost
from servers import CannotMeasure

PORT = 9747
MACS = {"e1000": "02:00:00:00:0a:01", "virtio-net": "02:00:00:00:0a:02", "mallee": "02:00:00:00:0a:03"}
ORDERS = {"tcp-to-guest": "--from", "tcp-from-guest": "--to", "request-response": "--rr"}
PATIENCE_S = 60


def client_words(peer_program, address, port, workload, seconds):
    return [str(peer_program), "--connect", address, "--port", str(port), ORDERS[workload], "--seconds", str(seconds)]


def serve(net, name, address, port, inside=()):
    return net.start(f"net-peer on {address}", [*inside, program("net-peer"), "--serve", "--listen", address, "--port", port],
                     f"{name}.log").wait_for("ready")


class OtherHost:
    """The namespace, or the host that the user named."""

    def __init__(self, net, named, port):
        self.named = named
        if named:
            self.address = named
            return
        subnet = net.subnet()
        namespace = net.namespace("peer")
        cable = net.cable("h", namespace)
        self.address = f"{subnet}.2"
        command("ip", "address", "add", f"{subnet}.1/24", "dev", cable)
        command("ip", "-n", namespace, "address", "add", f"{subnet}.2/24", "dev", "eth0")
        command("ip", "-n", namespace, "route", "add", "default", "via", f"{subnet}.1")
        forward(cable)
        serve(net, "peer", self.address, port, ["ip", "netns", "exec", namespace])


def forward(link):
    """Packets that come in by this link of ours may go out by another."""
    Path(f"/proc/sys/net/ipv4/conf/{link}/forwarding").write_text("1")


class HostPath:
    """The host's own figure: through its stack to itself, and over the cable."""
    configuration = "none"
    facts = {"emulated": False}

    def __init__(self, net, other, port):
        self.port = port
        self.servers = {"host": serve(net, "loopback", "127.0.0.1", port)}
        self.addresses = {"host": "127.0.0.1", "peer": other.address}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, target, workload, seconds):
        """What net-peer said, CPU seconds of what this host did for it, and of its virtual processor."""
        before = self.server_s(target)
        words = client_words(program("net-peer"), self.addresses[target], self.port, workload, seconds)
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"{self.addresses[target]} did not answer") from None
        if done.returncode:
            raise CannotMeasure(f"to {self.addresses[target]}: {done.stderr.strip()[-200:]}")
        said = json.loads(done.stdout)
        return said, said["cpu_s"] + self.server_s(target) - before, None

    def server_s(self, target):
        return self.servers[target].cpu_s() if target in self.servers else 0.0


class GuestPath:
    """A guest with one of the cards. Stock cards are on a bridge with nothing but the host's address; Mallee's on its own network."""

    def __init__(self, net, other, configuration, *, image, accel, port):
        self.net = net
        self.configuration = configuration
        self.accel = accel
        self.image = image
        self.port = port
        self.other = other
        self.stack = contextlib.ExitStack()
        self.facts = {"emulated": configuration == "e1000", "mtu": 1500, "vhost": vhost(configuration, accel)}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            where = self.mallee_port(stack) if self.configuration == "mallee" else self.stock_port()
            log = self.net.folder / f"{self.configuration}.log"
            self.guest = stack.enter_context(NetGuest(self.image, log, self.configuration, where["tap"], MACS[self.configuration], self.accel))
            self.guest.configure(where["ip"], where["prefix"], where["gateway"])
            self.server = serve(self.net, f"{self.configuration}-host", where["gateway"], self.port)
            self.addresses = {"host": where["gateway"], "peer": self.other.address}
            self.facts["offloads"] = self.guest.json("net-peer --offloads eth0", 20)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def stock_port(self):
        subnet = self.net.subnet()
        what = self.configuration[0]
        bridge = self.net.bridge(f"b{what}", address=f"{subnet}.1/24")
        forward(bridge)
        if self.other.named:
            self.masquerade(bridge, subnet)
        return {"tap": self.net.tap(f"t{what}", bridge), "gateway": f"{subnet}.1", "ip": f"{subnet}.2", "prefix": 24}

    def masquerade(self, bridge, subnet):
        """Another machine knows no way back to addresses of ours; what it answers is let in as Mallee's network lets it in."""
        table = f"mallee_bench_{self.net.id}_{self.configuration[0]}"
        self.net.later("command", command=["nft", "delete", "table", "ip", table])
        command("nft", f"add table ip {table}; add chain ip {table} out {{ type nat hook postrouting priority srcnat; }}; "
                       f"add rule ip {table} out ip saddr {subnet}.0/24 oifname != \"{bridge}\" masquerade")
        if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
            uplink = command("ip", "-o", "route", "get", self.other.named).partition(" dev ")[2].split()[0]
            path = Path(f"/proc/sys/net/ipv4/conf/{uplink}/forwarding")
            self.net.later("sysctl", path=str(path), value=path.read_text().strip())
            path.write_text("1")

    def mallee_port(self, stack):
        """By src/net: its bridge, its tap, its rules against forged addresses, its routing."""
        return stack.enter_context(MalleePort(self.net, MACS["mallee"], self.port)).where

    def run(self, target, workload, seconds):
        vcpus, qemu = self.guest.cpu_s()
        server = self.server.cpu_s() if target == "host" else 0.0
        words = client_words("net-peer", self.addresses[target], self.port, workload, seconds)
        said = self.guest.json(" ".join(words), seconds + PATIENCE_S)
        vcpus_end, qemu_end = self.guest.cpu_s()
        server_end = self.server.cpu_s() if target == "host" else 0.0
        return said, qemu_end - qemu + server_end - server, counters.busiest(vcpus, vcpus_end)


class MalleePort:
    """net-port: stands until its standard input closes, also when that is because this process was killed."""

    def __init__(self, net, mac, port):
        self.net = net
        self.folder = net.folder / "port"
        self.words = [str(word) for word in (program("net-port"), "--dir", self.folder, "--id", f"b{net.id}", "--mac", mac, "--port", port)]

    def __enter__(self):
        self.net.later("command", command=[self.words[0], "--dir", str(self.folder), "--uninstall"])
        with open(self.net.folder / "port.log", "wb") as log:
            self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                            start_new_session=True)
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise CannotMeasure(f"Mallee's network: {(self.net.folder / 'port.log').read_text().strip()[-300:]}")
        self.where = json.loads(line)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def own_processes_s():
    """What this process and its children that have ended took of the processor."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system
