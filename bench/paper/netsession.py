# SPDX-License-Identifier: Apache-2.0
"""The rows on a network volume: the disk under test is in a storage host, and what attaches it there is netvolume's."""
import contextlib
import time

from paper import netvolume
from paper.hostnet import HostNet
from paper.sessions import GuestSession, HostSession, flush_cache
from servers import CannotMeasure


class _Network:
    """Mixed in before a session: `volume` is the block device by which this host sees the network volume."""

    def attach(self):
        net = self.stack.enter_context(HostNet(self.bench.undo, self.bench.folder))
        self.storage_host = self.stack.enter_context(netvolume.StorageHost(net, self.bench.disk.device, mtu=self.bench.mtu))
        self.path = dict(self.storage_host.path)
        return net

    def attach_here(self):
        net = self.attach()
        self.volume = str(self.stack.enter_context(netvolume.host_initiator(net, self.storage_host)))
        return self.volume

    def run(self, line):
        """AoE has no flush: what the guest believes to be on the disk may be in the storage host's memory. Until it is on the disk
        the run is not over."""
        said = super().run(line)
        begin = time.monotonic()
        flush_cache(self.bench.disk.device)
        self.flush_s = time.monotonic() - begin
        return said

    def cool(self, workload):
        super().cool(workload)
        if self.volume:
            flush_cache(self.volume)

    volume = None


class NetworkHost(_Network, HostSession):
    def __enter__(self):
        self.stack = contextlib.ExitStack()
        with self.stack:
            self.target = self.attach_here()
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()


class NetworkGuest(_Network, GuestSession):
    """The host attaches the volume and gives it to the guest as any other disk."""

    def storage(self):
        return self.drive(self.attach_here())


class OwnDriverGuest(_Network, GuestSession):
    """The guest attaches it itself, over its network card: the study's proposal."""

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        with self.stack:
            log = self.bench.folder / f"{self.configuration['id']}.log"
            attached = self.stack.enter_context(netvolume.guest_initiator(self.attach(), self.storage_host, self.bench.image, log,
                                                                          accel=self.bench.accel))
            self.guest, self.target = attached.guest, attached.device
            self.limit_dirty()
            self.stack = self.stack.pop_all()
        return self


def session(bench, configuration):
    why = netvolume.why_empty(configuration["id"])
    if why:
        raise CannotMeasure(why)
    if configuration["id"] == "net-none":
        return NetworkHost(bench, configuration)
    if configuration["id"] == "net-guest":
        return OwnDriverGuest(bench, configuration)
    return NetworkGuest(bench, configuration)
