# SPDX-License-Identifier: Apache-2.0
"""What else the machine did while it was measured on, and what repeated runs come to."""
import os
import statistics
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SPREAD_PERCENT = 20 # of the median, from the lowest run to the highest: more is not to be relied on


class Processor:
    """The host's processor time since this was made: busy seconds, stolen seconds."""

    def __init__(self):
        self.start = self.read()

    @staticmethod
    def read():
        user, nice, system, idle, iowait, irq, softirq, steal = (int(f) for f in Path("/proc/stat").read_text().split()[1:9])
        return user + nice + system + irq + softirq, steal, user + nice + system + idle + iowait + irq + softirq + steal

    def since(self):
        return [(now - then) / TICKS for now, then in zip(self.read(), self.start)]

    def percent(self):
        busy, _, total = self.since()
        return 100 * busy / total if total else 0.0


def foreign(processor, own_s, seconds):
    """For a result: what others took while we used own_s of the processor."""
    busy, stolen, total = processor.since()
    return {"steal_percent": round(100 * stolen / total, 2) if total else 0.0, "load": round(os.getloadavg()[0], 2),
            "others_cores": round(max(0.0, busy - own_s) / seconds, 2) if seconds else 0.0}


def spread_percent(values):
    middle = statistics.median(values)
    return round(100 * (max(values) - min(values)) / middle, 1) if middle else 0.0
