# SPDX-License-Identifier: Apache-2.0
"""A result: what one run of `mallee bench` found, as it is kept in a JSON file.

A file may come from anywhere: it is checked here once, and what is read elsewhere is as FIELDS says. What is absent or null is
unknown. Kinds: `disk`, `net`, and `paper`, which holds the rows of both.
"""
import json
import math
import os
import tempfile

VERSION = 1
KINDS = ("disk", "net", "paper")
MAX_BYTES = 64 << 20

TEXT, NUMBER, FLAG, OBJECT, LIST = (str,), (int, float), (bool,), (dict,), (list,)
WANTED = {TEXT: "text", NUMBER: "a number", FLAG: "true or false", OBJECT: "an object", LIST: "a list"}

# Fields of a row. A name ending in ! must be there.
FIELDS = {
    "configuration!": TEXT, "workload!": TEXT, "vmm": TEXT, "target": TEXT, "driver": TEXT, "why_empty": TEXT,
    "mb_s": NUMBER, "iops": NUMBER, "mbit_s": NUMBER, "transactions_s": NUMBER, "avgrq_sectors": NUMBER, "avgqu": NUMBER,
    "util_percent": NUMBER, "ratio": NUMBER, "cpu_s_per_gb": NUMBER, "spread_percent": NUMBER, "unreliable": FLAG, "runs": LIST,
    "path": OBJECT, "study": OBJECT, "model": OBJECT, "held_back_by": LIST,
}
TOP_FIELDS = {"kind!": TEXT, "date": TEXT, "host": OBJECT, "versions": OBJECT, "settings": OBJECT, "foreign": OBJECT, "rows!": LIST}
HELD_FIELDS = {"rule!": TEXT, "why": TEXT, "mend": TEXT}


class BadResult(Exception):
    """Not a result; the message says what is wrong with it."""


def check_fields(thing, fields, where):
    for name, types in fields.items():
        needed = name.endswith("!")
        name = name.rstrip("!")
        value = thing.get(name)
        if value is None and not needed:
            continue
        # A bool is an int to Python, and no number to us.
        if not isinstance(value, types) or (isinstance(value, bool) and types is not FLAG):
            raise BadResult(f"{where}: {name} is {'missing' if value is None else f'not {WANTED[types]}'}")


def check_row(row, where):
    if not isinstance(row, dict):
        raise BadResult(f"{where} is not an object")
    check_fields(row, FIELDS, where)
    for part in ("study", "model"):
        check_fields(row.get(part) or {}, {name: FIELDS[name] for name in ("mb_s", "iops", "mbit_s", "transactions_s", "avgrq_sectors",
                                                                           "avgqu", "util_percent")}, f"{where}: {part}")
    for run in row.get("runs") or []:
        if not isinstance(run, dict):
            raise BadResult(f"{where}: a run is not an object")
        check_fields(run, {name: FIELDS[name] for name in ("mb_s", "iops", "mbit_s", "transactions_s")}, f"{where}: a run")
    for held in row.get("held_back_by") or []:
        if not isinstance(held, dict):
            raise BadResult(f"{where}: held_back_by holds what is not an object")
        check_fields(held, HELD_FIELDS, f"{where}: held_back_by")


def check(result):
    """The result itself, or BadResult."""
    if not isinstance(result, dict):
        raise BadResult("not an object")
    if result.get("version") != VERSION or isinstance(result.get("version"), bool):
        raise BadResult(f"its version is {result.get('version')!r}; this program reads version {VERSION}")
    check_fields(result, TOP_FIELDS, "the result")
    if result["kind"] not in KINDS:
        raise BadResult(f"its kind is {result['kind']!r}; known are {', '.join(KINDS)}")
    seen = set()
    for i, row in enumerate(result["rows"]):
        check_row(row, f"row {i + 1}")
        if key_of(row) in seen:
            raise BadResult(f"row {i + 1} is there twice: {' '.join(filter(None, key_of(row)))}")
        seen.add(key_of(row))
    return result


def no_constant(name):
    raise BadResult(f"{name} is no number")


def finite(text):
    """Python would read 1e999 as infinity."""
    value = float(text)
    return value if math.isfinite(value) else no_constant(text)


def short_int(text):
    return int(text) if len(text) <= 18 else finite(text)


def parse(text):
    try:
        return check(json.loads(text, parse_constant=no_constant, parse_float=finite, parse_int=short_int))
    except (ValueError, RecursionError) as e:
        raise BadResult(f"not JSON: {e}") from e


def read(path):
    try:
        with open(path, "rb") as f:
            data = f.read(MAX_BYTES + 1)
    except OSError as e:
        raise BadResult(f"{path}: {e.strerror}") from e
    if len(data) > MAX_BYTES:
        raise BadResult(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no result is")
    try:
        return parse(data.decode())
    except (UnicodeDecodeError, BadResult) as e:
        raise BadResult(f"{path}: {e}") from e


def write_text(path, text):
    """All of it or nothing: beside the file first, then renamed to it."""
    path = os.path.abspath(path)
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as f:
            f.write(text)
            os.fchmod(f.fileno(), 0o644)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def write_json(result, path):
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


# ---- rows ----

def is_net(row):
    return row["workload"] in ("tcp-to-guest", "tcp-from-guest", "request-response")


def key_of(row):
    """What makes a row the same row in another result. A network's is also told by whom it was measured to."""
    return (row["configuration"], row["workload"], row.get("target") if is_net(row) else None)


def main_figure(row):
    """Name and value of the figure that a row is about; the value is None in an empty row."""
    for name in ("mbit_s", "transactions_s") if is_net(row) else ("iops", "mb_s") if row["workload"].startswith("rand-") else ("mb_s",):
        if row.get(name) is not None:
            return name, row[name]
    return ("mbit_s" if is_net(row) else "mb_s"), None


def is_empty(row):
    return main_figure(row)[1] is None


def why_empty(row):
    return row.get("why_empty") or "not measured"


def rows_of(result, workload):
    return [row for row in result["rows"] if row["workload"] == workload]


def spread_of(row):
    """How far apart the runs lie, in percent of the median: from the slowest to the fastest. None: a single run tells nothing."""
    name, value = main_figure(row)
    runs = [run[name] for run in row.get("runs") or [] if run.get(name) is not None]
    if len(runs) > 1 and value:
        return (max(runs) - min(runs)) / value * 100
    return None if len(runs) == 1 else row.get("spread_percent")
