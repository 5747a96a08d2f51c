# SPDX-License-Identifier: Apache-2.0
"""A guest with a network card, for what is measured over the network. Lines for its shell go over the serial port."""
import contextlib
import json
import os
from pathlib import Path

from guest import Guest
from servers import TICKS, CannotMeasure

# The card, as QEMU's options. `mallee`: as libvirt makes it of what src/hyper/domain_xml.c (put_devices) says: model virtio on the
# tap that src/net/tap.c made, on a PCI Express root port of its own and hence virtio 1.x only; with vhost where KVM runs and the host
# has it, for libvirt opens that by itself. The others are QEMU's own cards with QEMU's defaults, in its own process.
CARDS = {
    "e1000": ("e1000", "e1000,netdev=net,mac={mac}"),
    "virtio-net": ("virtio_net", "virtio-net-pci,netdev=net,mac={mac}"),
    "mallee": ("virtio_net", "virtio-net-pci,netdev=net,mac={mac},bus=nic"),
}
ROOT_PORT = ["-device", "pcie-root-port,id=nic,chassis=1,slot=1"]


def vhost(card, accel):
    return card == "mallee" and accel == "kvm" and os.access("/dev/vhost-net", os.R_OK | os.W_OK)


def card_line(card, tap, mac, accel, mtu=1500):
    return ["-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,vhost={'on' if vhost(card, accel) else 'off'}",
            *(ROOT_PORT if card == "mallee" else []),
            "-device", CARDS[card][1].format(mac=mac) + (f",host_mtu={mtu}" if mtu != 1500 else "")]


class NetGuest(Guest):
    def __init__(self, image, log, card, tap, mac, accel, *, modules=(), mtu=1500):
        super().__init__(image, log, card_line(card, tap, mac, accel, mtu), modules=("virtio_pci", CARDS[card][0], *modules), disk="none",
                         accel=accel)

    def done(self, line, seconds=60):
        """What the line said; CannotMeasure when it failed."""
        said = self.run(f"{line}; echo \"code=$?\"", seconds).strip()
        text, _, code = said.rpartition("code=")
        if code.strip() != "0":
            raise CannotMeasure(f"in the guest: {line.split(';')[0]}: {text.strip()[-300:] or 'failed'}")
        return text.strip()

    def configure(self, ip, prefix, gateway=None, mtu=1500):
        self.done(f"ip link set eth0 mtu {mtu} up && ip addr add {ip}/{prefix} dev eth0")
        if gateway:
            self.done(f"ip route add default via {gateway}")
            # A cable takes up to a second until a bridge notices it.
            self.done(f"(for i in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 1 {gateway} > /dev/null && exit 0; done; exit 1)")

    def json(self, line, seconds):
        text = self.done(line, seconds)
        with contextlib.suppress(ValueError):
            return json.loads(text[text.index("{"):] if "{" in text else text)
        raise CannotMeasure(f"in the guest: {line} said: {text[-200:]}")

    def cpu_s(self):
        """CPU of each virtual processor; of all that QEMU does for the guest."""
        vcpus, total = {}, 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name, ticks = ticks_of(task / "stat")
            total += ticks
            if name.startswith("CPU "):
                vcpus[int(task.name)] = ticks / TICKS
        if self.process.poll() is not None:
            raise CannotMeasure(f"QEMU ended{self.last_words()}")
        return [vcpus[thread] for thread in sorted(vcpus)], (total + self.vhost_ticks()) / TICKS

    def vhost_ticks(self):
        """Kernels before 6.4 work for vhost in threads of their own, named after QEMU's process."""
        named = (ticks_of(stat) for stat in Path("/proc").glob("[0-9]*/stat"))
        return sum(ticks for name, ticks in named if name == f"vhost-{self.process.pid}")


def ticks_of(stat):
    """The name of a process or thread, and what it has used of the processor; nothing when it has ended."""
    try:
        head, _, rest = stat.read_text().rpartition(")")
    except OSError:
        return "", 0
    return head.partition("(")[2], sum(int(field) for field in rest.split()[11:13])
