# SPDX-License-Identifier: Apache-2.0
"""A mount namespace for a while. What is mounted in it nobody else sees: a program that makes a namespace of its own meanwhile (as
`ip netns exec` does) would carry a copy away and keep the disk in use after it is unmounted here. It ends with its processes, so
that a killed bench leaves no mount."""
import contextlib
import ctypes
import os

CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE = 0x4000, 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextlib.contextmanager
def private():
    """This process, and those that it starts, are in a namespace of their own; what others unmount goes here, too."""
    folder = os.getcwd()
    outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _must(_libc.unshare(CLONE_NEWNS), "a mount namespace")
        try:
            _must(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None), "a mount namespace")
            yield
        finally:
            _must(_libc.setns(outside, CLONE_NEWNS), "back to the mount namespace")
            os.chdir(folder) # setns went to its root
    finally:
        os.close(outside)
