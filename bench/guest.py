# SPDX-License-Identifier: Apache-2.0
"""A guest's dd against the host's, on one modelled disk.

The disk is a mallee-blockd with the `disk` filter over memory, shown as a file by FUSE, with a loop device on it: the host's dd
works on that device, and a second mallee-blockd serves it to a guest as a volume of an instance is served. The guest runs under
TCG, whose processors are slow; nothing in it is tuned.
"""
import contextlib
import json
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path

from servers import CannotMeasure, Server, die_with_parent, last_line

BLOCK_BYTES = 65536
BOOT_S = 120
JOBS = { # what dd is told
    "buffered write": "if=/dev/zero of={disk} conv=fsync",
    "buffered read": "if={disk} of=/dev/null",
    "direct read": "if={disk} of=/dev/null iflag=direct",
    "direct write": "if=/dev/zero of={disk} oflag=direct conv=fsync",
}


COLD = "sync; echo 3 > /proc/sys/vm/drop_caches" # what is to be read is not in memory


def dd_command(job, disk, count):
    """A flush at the end is timed with the rest. The disk is held open, as one that is mounted is: its last close would empty the
    cache of all pages within dd's time, which keeps an emulated processor busy for a millisecond a MiB, and no disk. With a path:
    busybox has a dd of its own."""
    return f"(/bin/dd {JOBS[job].format(disk=disk)} bs=64k count={count}) 3< {disk}"


def dd_line(job, disk, count):
    """A shell's line: dd with a cold cache."""
    return f"{COLD}; {dd_command(job, disk, count)}"


def dd_figures(text):
    """Bytes and seconds, from what dd said."""
    found = re.search(r"^(\d+) bytes.* copied, ([0-9.e+-]+) s", text, re.M)
    if not found:
        raise CannotMeasure(f"dd said: {text.strip()[-200:]}")
    return int(found.group(1)), float(found.group(2))


def dd_rate(text):
    """Bytes a second; dd's own figure is rounded."""
    size, seconds = dd_figures(text)
    return size / seconds


class Disk:
    """The modelled disk as a loop device."""

    def __init__(self, blockd, folder, rate, size):
        self.rate = rate
        self.file = folder / "model-disk"
        self.device = None
        self.server = Server("the modelled disk", [
            blockd, "--name", "model", "--back", f"mem:size={size}", "--filter", f"disk:preset=barracuda-7200.11,rate={rate}",
            "--front", f"fuse:mount={self.file}"], None, folder / "model-disk.log")

    def __enter__(self):
        self.file.touch()
        self.server.__enter__()
        deadline = time.monotonic() + 15
        while not self.file.stat().st_size: # mounted
            if self.server.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise CannotMeasure(f"the modelled disk did not start (see {self.server.log})")
            time.sleep(0.05)
        done = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", self.file], capture_output=True, text=True, check=False)
        if done.returncode:
            self.__exit__()
            raise CannotMeasure(f"losetup: {done.stderr.strip()}")
        self.device = done.stdout.strip()
        return self

    def __exit__(self, *_):
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], check=False)
            time.sleep(0.2)
        self.server.__exit__()

    def sectors(self):
        """Read, written: as the kernel counts them at the device."""
        for line in Path("/proc/diskstats").read_text().splitlines():
            fields = line.split()
            if fields[2] == os.path.basename(self.device):
                return int(fields[5]), int(fields[9])
        return 0, 0

    def dd(self, job, count):
        done = subprocess.run(["sh", "-c", dd_line(job, self.device, count)], capture_output=True, text=True, check=False)
        return dd_rate(done.stderr)


def image(build, source):
    """The folder with the guest's kernel and initramfs, made when it is not there or older than what it is made of."""
    folder = build / "bench" / "guest"
    made = subprocess.run([source / "image" / "bench" / "build", "--output", folder, "--programs", build / "bench"],
                          capture_output=True, text=True, check=False)
    if made.returncode:
        raise CannotMeasure(f"the guest's image: {made.stderr.strip()[-300:]}")
    return folder


def vhost_user_disk(sock):
    """QEMU's arguments for a volume; its guest's memory is to be shared."""
    return ["-chardev", f"socket,id=volume,path={sock}", "-device", "vhost-user-blk-pci,chardev=volume"]


ACCELERATORS = {"kvm": ["-accel", "kvm", "-cpu", "host"],
                "tcg": ["-accel", "tcg", "-cpu", "max,-erms,-fsrm"]} # with these a copy is "rep movsb", of which TCG makes bytes


VCPUS = min(2, os.cpu_count() or 1) # as EC2's smallest types have: one runs the program, one writes back or interrupts, as on the host


class Monitor:
    """QEMU's monitor (QMP), for figures that only QEMU has."""
    ANSWER_S = 5

    def __init__(self, connection):
        connection.settimeout(self.ANSWER_S)
        self.connection, self.lines, self.ready = connection, connection.makefile("r"), False

    def close(self):
        self.lines.close()
        self.connection.close()

    def _ask(self, command, **arguments):
        self.connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self.lines.readline():
            answer = json.loads(line)
            if "return" in answer or "error" in answer: # neither the greeting nor an event
                return answer.get("return")
        return None

    def exits(self):
        """How often the guest's processors have left KVM for the host. None: nobody counts (emulation, QEMU before 7.1)."""
        try:
            if not self.ready:
                self._ask("qmp_capabilities")
                self.ready = True
            of_each = self._ask("query-stats", target="vcpu", providers=[{"provider": "kvm", "names": ["exits"]}])
        except (OSError, ValueError): # it has ended, or does not answer in time
            return None
        counted = [one["value"] for vcpu in of_each or [] for one in vcpu["stats"] if one["name"] == "exits"]
        return sum(counted) if counted else None


class Guest:
    """QEMU; lines for its guest's shell go over the serial port. arguments: of its devices; modules, disk: see image/bench/init."""

    def __init__(self, image, log, arguments, *, modules=("virtio_pci", "virtio_blk"), disk="/dev/vda", accel="tcg", memory_mb=512,
                 boot_s=BOOT_S):
        self.log = open(log, "wb")
        self.text = b""
        self.boot_s = boot_s
        ours, theirs = socket.socketpair()
        self.monitor = Monitor(ours)
        self.process = subprocess.Popen([
            "qemu-system-x86_64", "-name", "bench,debug-threads=on", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-serial", "stdio", "-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control",
            "-machine", "q35,memory-backend=ram", *ACCELERATORS[accel], "-smp", str(VCPUS), "-m", str(memory_mb),
            "-object", f"memory-backend-memfd,id=ram,size={memory_mb}M,share=on",
            "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"),
            "-append", f"console=ttyS0 quiet panic=-1 mallee.modules={','.join(modules)} mallee.disk={disk}", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True, preexec_fn=die_with_parent,
            pass_fds=[theirs.fileno()])
        theirs.close()

    def __enter__(self):
        try:
            if b"mallee: no disk" in self.wait_for(rb"mallee: ready", self.boot_s):
                raise CannotMeasure(f"the guest found no disk (see {self.log.name})")
        except BaseException:
            self.__exit__()
            raise
        return self

    def end(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.end()
        self.monitor.close()
        self.log.close()

    def wait_for(self, pattern, seconds):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            self.log.write(data)
            self.log.flush()
            self.text += data
            if not data:
                raise CannotMeasure(f"the guest {'is silent' if self.process.poll() is None else 'ended'}{self.last_words()}")
        before = self.text[:found.start()]
        self.text = self.text[found.end():]
        return before

    def last_words(self):
        """What QEMU or its guest said last."""
        return f": {last_line(self.log.name)} (all of it: {self.log.name})"

    def run(self, line, seconds):
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise CannotMeasure(f"QEMU ended{self.last_words()}") from None
        return self.wait_for(rb"mallee: exit code \d+", seconds).decode(errors="replace")

    def dd(self, job, count):
        return dd_rate(self.run(dd_line(job, "/dev/vda", count), 300))


@contextlib.contextmanager
def volume(blockd, disk, folder, filters):
    """The mallee-blockd that serves the disk to the guest."""
    sock = folder / "volume.sock"
    command = [blockd, "--name", "volume", "--back", f"file:path={disk.device},direct=on"]
    for one in filters:
        command += ["--filter", one]
    with Server("the volume", command + ["--front", f"vhost-user:socket={sock}"], sock, folder / "volume.log") as server:
        server.sock = sock
        yield server


def compare_on(disk, guest, job, pairs, mib, say):
    """Runs in turn: host, guest, guest, host, … as lists of bytes a second."""
    count = mib * (1 << 20) // BLOCK_BYTES
    host, inside = [], []
    for turn in range(pairs):
        for side in (host, inside) if turn % 2 == 0 else (inside, host):
            before = disk.sectors()
            side.append((disk if side is host else guest).dd(job, count))
            moved = max(b - a for a, b in zip(before, disk.sectors())) * 512
            if moved < 0.9 * count * BLOCK_BYTES: # what a cache kept is not what is compared
                raise CannotMeasure(f"{job}: only {moved >> 20} MiB of {mib} passed the disk")
        say(f"    {turn + 1}/{pairs}  {job}: host {host[-1] / 1e6:.1f} MB/s, guest {inside[-1] / 1e6:.1f} MB/s")
    return host, inside
