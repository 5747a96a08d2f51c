# SPDX-License-Identifier: Apache-2.0
"""Volumes over the network: a storage host that exports the disk under test by AoE, and who attaches them.

The storage host is a network namespace on a cable whose both ends are limited to the rate of the study's, 1 Gb/s, and whose frames
hold 9000 bytes: AoE puts a request into one frame and splits larger ones. vblade is the target, through its host's page cache as in
the study. Two attach:

    with StorageHost(net, "/dev/loop0", mtu=9000) as storage:
        with guest_initiator(net, storage, image, log, accel=…) as volume:   # the row net-guest
            volume.guest.run(f"dd if={volume.device} …")
        with host_initiator(net, storage) as device:                         # net-none, and below the rows net-scsi-* and net-virtio-*
            …
`storage.path` is what a row's path says of the way; `why_empty(configuration)` is why a row cannot run here, or None.
"""
import contextlib
import os
import random
import shutil
import stat
import subprocess
import time
from collections import namedtuple
from pathlib import Path

from paper.hostnet import command
from paper.netguest import NetGuest
from servers import CannotMeasure

MTU, MTU_LEAST, MTU_MOST = 9000, 1500, 9000 # AoE wants a frame for two sectors at least; virtio-net takes 9000 and more
RATE_MBIT = 1000
BURST_KB = 256         # what may pass at once: some frames, far below what a run moves
QUEUE_MS = 20          # of frames that wait for the wire; then they are dropped, and AoE sends them again
MAC = "02:00:00:00:0b:01"
ATTACH_S = 15
ETHERD = Path("/dev/etherd")

GuestVolume = namedtuple("GuestVolume", "guest device")

HOST_ROWS = ("net-none", "net-scsi-phy", "net-scsi-tap", "net-virtio-phy", "net-virtio-tap")


def host_initiator_missing():
    """Why this host attaches no AoE volume, or None."""
    if Path("/sys/module/aoe").exists():
        return None
    if shutil.which("modprobe"):
        found = subprocess.run(["modprobe", "-q", "-n", "aoe"], check=False, capture_output=True)
        if found.returncode == 0:
            return None
    return f"this host's kernel ({os.uname().release}) has no AoE initiator (module aoe)"


def why_empty(configuration):
    if not configuration.startswith("net-"):
        return None
    if configuration == "net-mallee":
        return "Mallee's engine has no AoE of its own yet: it comes with network volumes"
    if os.geteuid() != 0:
        return "a storage host in a network namespace is made by root only"
    if not shutil.which("vblade"):
        return "vblade is missing (Debian's package vblade)"
    return host_initiator_missing() if configuration in HOST_ROWS else None


def limit(rate_mbit, *where):
    command("tc", *where[:-1], "qdisc", "add", "dev", where[-1], "root", "tbf", "rate", f"{rate_mbit}mbit", "burst", f"{BURST_KB}kb",
            "latency", f"{QUEUE_MS}ms")


class StorageHost:
    """Exports one block device or file of this host. rate_mbit None: no limit."""

    def __init__(self, net, disk, *, mtu=MTU, rate_mbit=RATE_MBIT, direct=False):
        self.net = net
        self.disk = disk
        self.mtu = mtu
        self.rate_mbit = rate_mbit
        self.direct = direct
        self.shelf = random.randrange(1, 60000)
        self.volume = f"e{self.shelf}.1"
        self.path = {"mtu": mtu, "host_cache": not direct, "target": "AoE"}
        self.target = None

    def __enter__(self):
        namespace = self.net.namespace("storage")
        self.cable = self.net.cable("s", namespace, self.mtu)
        self.bridge = self.net.bridge("b", self.mtu)
        command("ip", "link", "set", self.cable, "master", self.bridge)
        self.limit_link(namespace)
        target = ["vblade", *(["-d"] if self.direct else []), self.shelf, 1, "eth0", self.disk]
        self.target = self.net.start("the storage host (vblade)", ["ip", "netns", "exec", namespace, "stdbuf", "-oL", *target], "vblade.log")
        self.target.wait_for("sectors")
        return self

    def __exit__(self, *_):
        if self.target:
            self.target.__exit__()

    def limit_link(self, namespace):
        """Both ends: what the storage host sends, and what it is sent."""
        if not self.rate_mbit:
            self.path["note"] = "the link to the storage host has no limit"
            return
        try:
            limit(self.rate_mbit, "-n", namespace, "eth0")
            limit(self.rate_mbit, self.cable)
            self.path["wire_mb_s"] = self.rate_mbit / 8
        except CannotMeasure as e:
            self.path["note"] = f"the link to the storage host has no limit: {e}"

    def cpu_s(self):
        """Of the target; the storage host's, not the guest's host's."""
        return self.target.cpu_s()


@contextlib.contextmanager
def guest_initiator(net, storage, image, log, *, accel):
    """A guest that attaches the volume with its own driver, over virtio-net."""
    tap = net.tap("v", storage.bridge, storage.mtu)
    with NetGuest(image, log, "virtio-net", tap, MAC, accel, modules=["aoe"], mtu=storage.mtu) as guest:
        device = f"/dev/etherd/{storage.volume}"
        guest.done(f"ip link set eth0 mtu {storage.mtu} up")
        # The driver asks once, when its interface comes up, and the bridge may not forward yet. Whether it is a block device is
        # asked for: dd would make a plain file of what is not there.
        guest.done(f"n=0; while [ ! -b {device} ] && [ $n -lt {ATTACH_S * 5} ]; do echo > /dev/etherd/discover; usleep 200000; "
                   f"n=$((n + 1)); done; [ -b {device} ]", ATTACH_S * 4)
        yield GuestVolume(guest, device)


@contextlib.contextmanager
def host_initiator(net, storage):
    """The device as which this host's own kernel attaches the volume. What it attaches elsewhere is left alone."""
    missing = host_initiator_missing()
    if missing:
        raise CannotMeasure(missing)
    net.module("aoe")
    device = ETHERD / storage.volume
    deadline = time.monotonic() + ATTACH_S
    while not is_block_device(device):
        if time.monotonic() > deadline:
            raise CannotMeasure(f"the volume {storage.volume} did not appear as {device}")
        (ETHERD / "discover").write_text("\n")
        time.sleep(0.2)
    try:
        yield device
    finally:
        with contextlib.suppress(OSError):
            (ETHERD / "flush").write_text(storage.volume)


def is_block_device(path):
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
