# SPDX-License-Identifier: Apache-2.0
"""How often a guest left KVM, as QEMU tells it."""
import json
import socket
import subprocess
import threading

import guest as guest_dd
import pytest


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    monitor = guest_dd.Monitor(ours)
    yield monitor, theirs
    monitor.close()
    theirs.close()


def play(theirs, *answers):
    """A QEMU that greets, tells an event between, and gives these answers in turn."""
    def run():
        with theirs.makefile("rw") as stream:
            stream.write('{"QMP": {}}\n')
            stream.flush()
            for answer in answers:
                stream.readline()
                stream.write('{"event": "RTC_CHANGE"}\n' + (answer if isinstance(answer, str) else json.dumps(answer)) + "\n")
                stream.flush()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def of_vcpus(*values):
    return {"return": [{"provider": "kvm", "stats": [{"name": "exits", "value": value}]} for value in values]}


def test_sum_of_all_processors(pair):
    monitor, theirs = pair
    play(theirs, {"return": {}}, of_vcpus(3, 4), of_vcpus(30, 40))
    assert monitor.exits() == 7
    assert monitor.exits() == 70


def test_nobody_counts(pair):
    monitor, theirs = pair
    play(theirs, {"return": {}}, {"return": []}, {"error": {"class": "CommandNotFound"}}, "nonsense")
    assert [monitor.exits(), monitor.exits(), monitor.exits()] == [None, None, None]


def test_qemu_that_ended(pair):
    monitor, theirs = pair
    theirs.close()
    assert monitor.exits() is None


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_qemu_itself(pair, accel):
    """A machine that is never started: it need not be able to run anything."""
    monitor, theirs = pair
    with subprocess.Popen(["qemu-system-x86_64", "-accel", accel, "-cpu", "qemu64", "-smp", "2", "-m", "32", "-S", "-nodefaults", "-display", "none",
                           "-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()]) as qemu:
        theirs.close()
        try:
            if accel == "tcg":
                assert monitor.exits() is None
            elif monitor.exits() is None:
                qemu.kill()
                pytest.skip(f"there is no KVM here: {qemu.stderr.read().decode().strip()[:200]}")
            else:
                assert monitor.exits() == 0
        finally:
            qemu.kill()
