# SPDX-License-Identifier: Apache-2.0
"""Out of many runs, rows: medians, spread, what the study had, and what is known of the path."""
import json
import statistics
from pathlib import Path

from paper import netvolume
from paper.watch import spread_percent

SPREAD_PERCENT = 15 # from the lowest run to the highest; more is not to be relied on
STUDY = Path(__file__).resolve().parent.parent / "study.json"
COLUMNS = ("mb_s", "avgrq_sectors", "avgqu", "util_percent")
RUN_FIELDS = COLUMNS + ("cpu_s", "seconds", "bytes", "iops", "guest_cpu_percent", "host_cpu_percent", "flushes_s", "disk_bytes", "exits")


def study_figures():
    """(configuration, workload) -> the study's columns."""
    rows = json.loads(STUDY.read_text())["rows"]
    return {(row["configuration"], row["workload"]): {name: row[name] for name in COLUMNS if row.get(name) is not None} for row in rows}


def median(runs, name):
    values = [run[name] for run in runs if run.get(name) is not None]
    return statistics.median(values) if values else None


def path_of(one, work, runs, more, disk):
    """What the diagnosis is told: of the workload, of the way, of the disk."""
    path = {"depth": work["depth"], "request_bytes": work["request_bytes"], "direct": work["direct"], "write": work["write"],
            "random": work["random"], **one["facts"], **more, **disk}
    if one["vmm"] != "none":
        path["guest_cpu_percent"] = median(runs, "guest_cpu_percent")
    path["host_cpu_percent"] = median(runs, "host_cpu_percent")
    path["flushes_s"] = median(runs, "flushes_s")
    exits = [run["exits"] / (run["bytes"] / work["request_bytes"]) for run in runs if run.get("exits") is not None]
    path["exits_per_request"] = statistics.median(exits) if exits else None
    if one["session"] == "file" and work["write"]:
        extra = [max(0, run["disk_bytes"] - run["bytes"]) / 4096 / run["seconds"] for run in runs]
        path["metadata_writes_s"] = statistics.median(extra) # blocks of 4 KiB beyond the data
    return {name: value for name, value in path.items() if value is not None}


def cpu_s_per_gb(runs):
    return statistics.median(run["cpu_s"] / run["bytes"] * 1e9 for run in runs)


def row_of(one, work, runs, empty, more, disk, study, accel):
    """One row of a result. more: what its session learnt of the path; disk: what is known of the disk."""
    row = {"configuration": one["id"], "vmm": accel if one["vmm"] == "kvm" else one["vmm"], "target": one["target"], "driver": one["driver"],
           "workload": work["id"], "why_empty": None, "study": study.get((one["id"], work["id"])), "model": None, "held_back_by": []}
    if not runs:
        return {**row, "why_empty": empty or one.get("why_empty") or netvolume.why_empty(one["id"]) or "it was not reached", "runs": []}
    spread = spread_percent([run["mb_s"] for run in runs])
    return {**row, **{name: median(runs, name) for name in COLUMNS}, **({"iops": median(runs, "iops")} if work["random"] else {}),
            "cpu_s_per_gb": cpu_s_per_gb(runs), "spread_percent": spread, "unreliable": len(runs) < 2 or spread > SPREAD_PERCENT,
            "runs": [{name: run[name] for name in RUN_FIELDS if run.get(name) is not None} for run in runs],
            "path": path_of(one, work, runs, more, disk)}


def with_ratios(rows):
    """To the host's own figure of the same workload."""
    host = {row["workload"]: row["mb_s"] for row in rows if row["configuration"] == "none" and row.get("mb_s")}
    for row in rows:
        if row.get("mb_s") and host.get(row["workload"]):
            row["ratio"] = row["mb_s"] / host[row["workload"]]
    return rows


def disk_facts(disk, runs):
    """Its best rate: the model's own, or what the host got. At which request it reaches that is what the host's rows show, in either
    direction (`mallee bench explain` looks there); without them it is what the device takes at most."""
    host = [run["mb_s"] for (one, _), all_ in runs.items() if one == "none" for run in all_ if run["avgrq_sectors"]]
    return {"disk_mb_s": disk.rate / 1e6 if disk.rate else max(host, default=None),
            **({} if host else {"disk_best_sectors": disk.largest_request_sectors()})}
