# SPDX-License-Identifier: Apache-2.0
"""A result as CSV: a line a row, all figures raw, one header for all workloads."""
import csv
import io

from paper.result import write_text

FIGURES = ["mb_s", "iops", "mbit_s", "transactions_s", "avgrq_sectors", "avgqu", "util_percent"]
OWN = ["workload", "configuration", "vmm", "target", "driver", *FIGURES, "ratio", "cpu_s_per_gb", "spread_percent", "unreliable"]
HEADER = [*OWN, "runs", *(f"study_{name}" for name in FIGURES), *(f"model_{name}" for name in FIGURES), "held_back_by", "why_empty"]


def safe(value):
    """A spreadsheet would run a text that begins like a formula: it gets an apostrophe."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def line_of(row):
    study, model = row.get("study") or {}, row.get("model") or {}
    line = [row.get(name) for name in OWN] + [len(row.get("runs") or [])]
    line += [study.get(name) for name in FIGURES] + [model.get(name) for name in FIGURES]
    line += [" ".join(held["rule"] for held in row.get("held_back_by") or []), row.get("why_empty")]
    return [safe({True: "yes", False: "no"}[value] if isinstance(value, bool) else value) for value in line]


def csv_text(result):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(HEADER)
    for row in result["rows"]:
        writer.writerow(line_of(row))
    return out.getvalue()


def write_csv(result, path):
    write_text(path, csv_text(result))
