# SPDX-License-Identifier: Apache-2.0
"""Which columns a workload's table has, for the terminal, for CSV, HTML and docs/paper.md alike.

A Column takes its value out of a row, raw; `text` makes it readable. The workloads stand in the order in which they are told.
"""
from collections import namedtuple

from paper.result import is_net, main_figure

Column = namedtuple("Column", "key title about value text numeric")
Workload = namedtuple("Workload", "id title about table")

WORKLOADS = [
    Workload("dd-write", "dd, writing", "64 kB blocks through the guest's page cache, a flush at the end", "Table 1"),
    Workload("dd-read", "dd, reading", "64 kB blocks through the guest's page cache, which is cold", "Table 2"),
    Workload("direct-write", "dd, writing directly", "64 kB blocks past the page cache, one at a time", None),
    Workload("direct-read", "dd, reading directly", "64 kB blocks past the page cache, one at a time", None),
    Workload("aio8-write", "asynchronous writes, 8 deep", "64 kB blocks past the page cache: the remedy that the study proposed", None),
    Workload("aio8-read", "asynchronous reads, 8 deep", "64 kB blocks past the page cache: the remedy that the study proposed", None),
    Workload("aio32-write", "asynchronous writes, 32 deep", "64 kB blocks past the page cache", None),
    Workload("aio32-read", "asynchronous reads, 32 deep", "64 kB blocks past the page cache", None),
    Workload("rand-write", "random writes", "4 KiB, past the page cache, 8 at a time", None),
    Workload("rand-read", "random reads", "4 KiB, past the page cache, 8 at a time", None),
    Workload("stream-write", "streaming writer", "64 MiB blocks in checksummed chunks of 512 bytes, as Hadoop's TestDFSIO", "Figure 3"),
    Workload("stream-read", "streaming reader", "64 MiB blocks in checksummed chunks of 512 bytes, as Hadoop's TestDFSIO", "Figure 3"),
    Workload("tcp-to-guest", "TCP to the guest", "one stream; the study's \"receive\"", "Figure 4"),
    Workload("tcp-from-guest", "TCP from the guest", "one stream; the study's \"transmit\"", "Figure 4"),
    Workload("request-response", "request and response", "one byte there, one byte back, one at a time", None),
]
BY_ID = {workload.id: workload for workload in WORKLOADS}
NONE = "–"


def workloads_of(result):
    """Those that the result has rows of; what is not known here comes last, under its own name."""
    present = {row["workload"]: None for row in result["rows"]}
    known = [workload for workload in WORKLOADS if workload.id in present]
    return known + [Workload(name, name, "", None) for name in present if name not in BY_ID]


# ---- numbers ----

def figure(value, digits=3):
    """As many digits as mean something: 0.57, 1.3, 71.5, 110, 1,024."""
    if value is None:
        return NONE
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else 1
    text = f"{value:.{max(0, digits - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text and float(text) == 0 else text


def whole(value):
    return NONE if value is None else f"{value:,.0f}"


def share(value):
    """Of the host's: 0.98 as 98 %."""
    return NONE if value is None else f"{value * 100:.0f} %" if value >= 0.1 else f"{value * 100:.1f} %"


def words(value):
    return value or NONE


def of(part, name):
    return lambda row: (row.get(part) or {}).get(name)


def own(name):
    return lambda row: row.get(name)


# ---- columns ----

def text_column(key, title, about):
    return Column(key, title, about, own(key), words, False)


NAMES = {"kvm": "KVM", "tcg": "TCG", "xen": "Xen", "ec2": "EC2"}


def vmm_text(name):
    return NAMES.get(name, words(name))


VMM = Column("vmm", "VMM", "hypervisor; none is the host itself", own("vmm"), vmm_text, False)
TARGET = text_column("target", "target", "what the guest's disk is")
DRIVER = text_column("driver", "driver", "the guest's driver, and the way to the disk in the host")
NIC = text_column("driver", "NIC", "the guest's network card; none is the host itself")
PEER = text_column("target", "to", "the guest's own host, or another one")

RATIO = Column("ratio", "of native", "this row's rate by the host's own on the same disk or network", own("ratio"), share, True)
CPU = Column("cpu_s_per_gb", "CPU s/GB", "processor seconds of the host for each GB, all processes", own("cpu_s_per_gb"), figure, True)
IOSTAT = [
    Column("avgrq_sectors", "avgrq-sz", "mean request at the disk, in sectors of 512 bytes", own("avgrq_sectors"), whole, True),
    Column("avgqu", "avgqu-sz", "mean number of requests outstanding at the disk", own("avgqu"), figure, True),
    Column("util_percent", "%util", "share of time in which the disk had something to do", own("util_percent"), whole, True),
]
TITLES = {"mb_s": ("MB/s", "in the guest"), "iops": ("IOPS", "operations a second, in the guest"), "mbit_s": ("Mb/s", "in the guest"),
          "transactions_s": ("trans/s", "requests answered in a second")}


def rate_columns(name):
    title, about = TITLES[name]
    return [Column(name, title, about, own(name), whole if name in ("iops", "mbit_s", "transactions_s") else figure, True)]


def told_columns(name):
    title = TITLES[name][0]
    return [Column(f"study_{name}", f"study {title}", "the study's figure for this row", of("study", name), figure, True),
            Column(f"model_{name}", f"model {title}", "what the model expects here", of("model", name), figure, True)]


def has_any(rows, column):
    return any(column.value(row) is not None for row in rows)


def columns_of(rows):
    """The columns of one workload's table. Where neither study nor model says anything of a workload they have none; the study
    did measure dd, of some rows."""
    told = rows[0]["workload"] in ("dd-write", "dd-read")
    return [column for column in all_columns(rows) if told or not column.key.startswith(("study_", "model_")) or has_any(rows, column)]


def all_columns(rows):
    name = next((main_figure(row)[0] for row in rows if main_figure(row)[1] is not None), main_figure(rows[0])[0])
    if is_net(rows[0]):
        return [VMM, NIC, PEER, *rate_columns(name), RATIO, CPU, *told_columns(name)]
    rates = rate_columns("mb_s") + (rate_columns("iops") if rows[0]["workload"].startswith("rand-") else [])
    return [VMM, TARGET, DRIVER, *rates, *IOSTAT, RATIO, CPU, *told_columns("mb_s")]


def by_reason(rows):
    """Empty rows gathered by why they are empty, in order: [(reason, rows)]."""
    reasons = {}
    for row in rows:
        reasons.setdefault(row.get("why_empty") or "not measured", []).append(row)
    return list(reasons.items())
