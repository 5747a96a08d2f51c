# SPDX-License-Identifier: Apache-2.0
"""The rows: over what a workload reaches the disk. One entry each, in the order of the study's tables.

session: who runs it (sessions.SESSIONS). drive: QEMU's options of the disk; phy is kernel-direct (O_DIRECT, native AIO on the block
device), tap is through user space (threads, the page cache). devices: QEMU's -device arguments, `disk` being the drive. modules, disk:
what the guest loads and waits for. facts: what the diagnosis is told of the path. why_empty: why no host can run it with this program.
"""
PHY = "cache=none,aio=native"
TAP = "cache=writeback,aio=threads"

LSI = {"devices": ["lsi53c895a,id=bus", "scsi-hd,bus=bus.0,drive=disk"], "modules": ["sym53c8xx", "sd_mod"], "disk": "/dev/sda",
       "emulated": True}
VIRTIO = {"devices": ["virtio-blk-pci,drive=disk"], "modules": ["virtio_pci", "virtio_blk"], "disk": "/dev/vda", "emulated": False}
VIRTIO_SCSI = {"devices": ["virtio-scsi-pci,id=bus", "scsi-hd,bus=bus.0,drive=disk"], "modules": ["virtio_pci", "virtio_scsi", "sd_mod"],
               "disk": "/dev/sda", "emulated": False}
NVME = {"devices": ["nvme,serial=mallee-bench,drive=disk"], "modules": ["nvme"], "disk": "/dev/nvme0n1", "emulated": True}

NO_XEN = "Xen: this program drives QEMU under KVM or TCG only; Mallee has no Xen driver yet"
NO_EC2 = "EC2: no endpoint is asked; Mallee measures this machine only"


def local(name, driver, device, drive, **more):
    return {"id": name, "vmm": "kvm", "target": "local disk", "driver": driver, "session": "device", "drive": drive, **device,
            "facts": {"sparse": False, "host_cache": drive == TAP, "emulated": device["emulated"]}, **more}


def network(name, driver, **more):
    return {"id": name, "vmm": "kvm", "target": "EBS", "driver": driver, "session": "network",
            "facts": {"sparse": False, "network_volume": True}, **more}


def nowhere(name, vmm, target, driver, why):
    return {"id": name, "vmm": vmm, "target": target, "driver": driver, "session": None, "why_empty": why, "facts": {}}


CONFIGURATIONS = [
    {"id": "none", "vmm": "none", "target": "local disk", "driver": None, "session": "host", "facts": {"sparse": False, "host_cache": False}},
    {"id": "file-scsi", "vmm": "kvm", "target": "local file", "driver": "SCSI, sparse file", "session": "file",
     "drive": "cache=writethrough,aio=threads", **LSI, "facts": {"sparse": True, "host_cache": True, "emulated": True}},
    local("disk-scsi-phy", "SCSI/phy", LSI, PHY),
    local("disk-scsi-tap", "SCSI/tap", LSI, TAP),
    local("disk-virtio-phy", "virtio/phy", VIRTIO, PHY),
    local("disk-virtio-tap", "virtio/tap", VIRTIO, TAP),
    local("disk-virtio-scsi", "virtio-scsi/phy", VIRTIO_SCSI, PHY),
    local("disk-nvme", "NVMe/phy", NVME, PHY),
    {"id": "mallee", "vmm": "kvm", "target": "local disk", "driver": "Mallee", "session": "volume", **VIRTIO,
     "facts": {"sparse": False, "host_cache": False, "emulated": False}},
    nowhere("xen-file-scsi", "xen", "local file", "SCSI, preallocated file", NO_XEN),
    nowhere("xen-disk-scsi-phy", "xen", "local disk", "SCSI/phy", NO_XEN),
    nowhere("xen-disk-scsi-tap", "xen", "local disk", "SCSI/tap", NO_XEN),
    nowhere("xen-disk-xvd-phy", "xen", "local disk", "XVD/phy", NO_XEN),
    nowhere("ec2-instance", "ec2", "instance", "proprietary", NO_EC2),
    {"id": "net-none", "vmm": "none", "target": "EBS", "driver": None, "session": "network", "facts": {"network_volume": True}},
    network("net-scsi-phy", "SCSI/phy", drive=PHY, **LSI),
    network("net-scsi-tap", "SCSI/tap", drive=TAP, **LSI),
    network("net-virtio-phy", "virtio/phy", drive=PHY, **VIRTIO),
    network("net-virtio-tap", "virtio/tap", drive=TAP, **VIRTIO),
    network("net-mallee", "Mallee"),
    network("net-guest", "guest's own AoE driver"), # netvolume knows its card and module
    nowhere("xen-net-scsi-phy", "xen", "EBS", "SCSI/phy", NO_XEN),
    nowhere("xen-net-scsi-tap", "xen", "EBS", "SCSI/tap", NO_XEN),
    nowhere("ec2-ebs", "ec2", "EBS", "proprietary", NO_EC2),
]

BY_ID = {one["id"]: one for one in CONFIGURATIONS}
