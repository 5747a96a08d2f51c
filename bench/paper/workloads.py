# SPDX-License-Identifier: Apache-2.0
"""What is run on a disk, on the host and in a guest alike: a shell's line, and what its output says.

Writers come first: readers then find what was written. dd and the stream are told bytes, the asynchronous ones seconds; the sizes
are chosen so that a run takes about as long as is wished.
"""
import json
import re

import guest as guest_dd
from servers import CannotMeasure

MIB = 1 << 20
DD_BLOCK = 65536
PACKET = 65536


def _dd(name, job, *, write, direct, about):
    return {"id": name, "kind": "dd", "job": job, "write": write, "direct": direct, "depth": 1, "request_bytes": DD_BLOCK, "random": False,
            "about": about}


def _aio(name, *, write, depth, block=65536, random=False, about):
    return {"id": name, "kind": "aio", "write": write, "direct": True, "depth": depth, "request_bytes": block, "random": random, "about": about}


def _stream(name, *, write, about):
    return {"id": name, "kind": "stream", "write": write, "direct": False, "depth": 1, "request_bytes": PACKET, "random": False, "about": about}


WORKLOADS = [
    _dd("dd-write", "buffered write", write=True, direct=False, about="dd bs=64k, flushed at its end"),
    _dd("direct-write", "direct write", write=True, direct=True, about="dd bs=64k oflag=direct, flushed at its end"),
    _aio("aio8-write", write=True, depth=8, about="64 kB direct, 8 in flight, flushed at the end"),
    _aio("aio32-write", write=True, depth=32, about="64 kB direct, 32 in flight, flushed at the end"),
    _aio("rand-write", write=True, depth=8, block=4096, random=True, about="4 KiB at random, direct, 8 in flight"),
    _stream("stream-write", write=True, about="TestDFSIO's pattern: 64 MiB blocks, 512-byte chunks with CRC-32 beside them"),
    _stream("stream-read", write=False, about="the same, each chunk verified"),
    _dd("dd-read", "buffered read", write=False, direct=False, about="dd bs=64k, cold cache"),
    _dd("direct-read", "direct read", write=False, direct=True, about="dd bs=64k iflag=direct"),
    _aio("aio8-read", write=False, depth=8, about="64 kB direct, 8 in flight"),
    _aio("aio32-read", write=False, depth=32, about="64 kB direct, 32 in flight"),
    _aio("rand-read", write=False, depth=8, block=4096, random=True, about="4 KiB at random, direct, 8 in flight"),
]

BLOCK, META = 64 * MIB, MIB // 2 # of the stream: its data, and the checksums behind them

BY_ID = {one["id"]: one for one in WORKLOADS}


def stream_blocks(disk_bytes):
    return disk_bytes // (BLOCK + META)


def most(workload, disk_bytes):
    """Bytes that it can move on a disk of that size."""
    return stream_blocks(disk_bytes) * BLOCK if workload["kind"] == "stream" else disk_bytes // MIB * MIB


def is_sized(workload):
    """Its run is so many bytes long, and not so many seconds."""
    return workload["kind"] != "aio"


def command(workload, disk, programs, *, size, seconds):
    """A shell's line; programs: the folder of ours there."""
    if workload["kind"] == "dd":
        return guest_dd.dd_command(workload["job"], disk, size // DD_BLOCK)
    if workload["kind"] == "stream":
        return f"({programs}/stream {'write' if workload['write'] else 'read'} {disk} {size}) 3< {disk}"
    options = ("--write " if workload["write"] else "") + ("--random " if workload["random"] else "")
    return f"{programs}/aio-load {disk} --seconds {seconds:g} {options}--depth {workload['depth']} --bs {workload['request_bytes']} --span {size}"


def figures(workload, text):
    """{"bytes", "seconds"[, "ops"]} out of what the line printed."""
    if workload["kind"] == "dd":
        size, seconds = guest_dd.dd_figures(text)
        return {"bytes": size, "seconds": seconds}
    found = re.findall(r"^\{.*\}", text, re.M)
    if not found:
        raise CannotMeasure(f"{workload['id']}: {' '.join(text.split())[-200:] or 'it said nothing'}")
    return json.loads(found[-1])
