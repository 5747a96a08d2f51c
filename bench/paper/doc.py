# SPDX-License-Identifier: Apache-2.0
"""Put a result's tables into docs/paper.md: between the markers `<!-- generated NAME -->` and `<!-- end -->` all is replaced, the
rest is left as it is. NAME is a workload (dd-write), or machine, summary, model, diagnosis, empty.
"""
import re
import sys
from pathlib import Path

from paper import store
from paper.columns import BY_ID, Column, by_reason, columns_of, figure, share, whole, workloads_of
from paper.diagnosis import findings_of, short_name
from paper.figures import by_configuration
from paper.machine import flat, host_text, notes_of, settings_text, versions_text
from paper.markup import plain
from paper.result import BadResult, is_empty, is_net, rows_of, write_text

PAPER_MD = store.SOURCE / "docs" / "paper.md"
BLOCK = re.compile(r"^<!-- generated ([a-z0-9-]+) -->\n(.*?)^<!-- end -->$", re.M | re.S)
NOTHING = "*No figures yet: run `make bench-paper`.*\n"

# The study's other columns, which only this document has room for.
STUDY_IOSTAT = [("avgrq_sectors", "avgrq-sz", whole), ("avgqu", "avgqu-sz", figure), ("util_percent", "%util", whole)]


def cell(text):
    """Text that Markdown shows as it is, within a line of a table."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", plain(text).replace("\n", " "))


def markdown_table(head, body, numeric):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("--:" if n else "---" for n in numeric) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, line)) + " |" for line in body]) + "\n"


# ---- what a marker may name: each takes the result and gives Markdown, or "" ----

def public_host(result):
    """Without what a kernel's builder appended to its version: that says nothing to others."""
    host = dict(result.get("host") or {})
    found = re.match(r"[0-9.]+[0-9]", str(host.get("kernel") or ""))
    return {**host, "kernel": found[0]} if found else host


def machine(result):
    facts = [("Measured", result.get("date")), ("Host", host_text(public_host(result))), ("Versions", versions_text(result)),
             ("Settings", settings_text(result)), ("Meanwhile", ", ".join(f"{name} {value}" for name, value in flat(result.get("foreign"))))]
    lines = [f"- {name}: {cell(value)}" for name, value in facts if value]
    return "\n".join(lines + [f"- {cell(note)}" for note in notes_of(result)]) + "\n"


def study_columns(rows):
    return [Column(f"study_{name}", f"study {title}", "", lambda row, name=name: (row.get("study") or {}).get(name), text, True)
            for name, title, text in STUDY_IOSTAT if any((row.get("study") or {}).get(name) is not None for row in rows)]


def with_study(columns, rows):
    """The study's columns stand together, behind its rate."""
    at = next((i for i, column in enumerate(columns) if column.key.startswith("study_")), None)
    return columns if at is None else columns[:at + 1] + study_columns(rows) + columns[at + 1:]


def workload_table(result, workload):
    rows = rows_of(result, workload)
    if not rows:
        return ""
    columns = with_study(columns_of([row for row in rows if not is_empty(row)] or rows), rows)
    body = []
    for row in rows:
        cells = [column.text(column.value(row)) for column in columns]
        first = next(i for i, column in enumerate(columns) if column.numeric)
        if is_empty(row):
            cells[first] = "empty"
        elif row.get("unreliable"):
            cells[first] += " ?"
        body.append(cells)
    return markdown_table([column.title for column in columns], body, [column.numeric for column in columns])


def summary(result):
    """Shares of the host's own: ours and the study's, of the rows that the text is about."""
    shown = [("file-scsi", "SCSI, sparse file"), ("disk-scsi-phy", "SCSI, whole disk"), ("disk-virtio-phy", "virtio, whole disk"), ("mallee", "Mallee"),
             ("net-guest", "the guest's own driver, network disk")]
    body = []
    for workload in workloads_of(result):
        rows = by_configuration(rows_of(result, workload.id))
        if not is_net({"workload": workload.id}) and any(rows.get(c, {}).get("ratio") is not None for c, _ in shown[:-1]):
            body.append([workload.title, *(share(rows.get(c, {}).get("ratio")) for c, _ in shown)])
    return markdown_table(["of the host's own rate", *(title for _, title in shown)], body, [False] + [True] * len(shown)) if body else ""


def model(result):
    body = []
    for workload in workloads_of(result):
        for row in rows_of(result, workload.id):
            here, expected = row.get("mb_s"), (row.get("model") or {}).get("mb_s")
            if here and expected is not None:
                m = row["model"]
                body.append([workload.title, short_name(row), figure(here), figure(expected), f"{(expected / here - 1) * 100:+.0f} %",
                             *(f"{text(row.get(name))} / {text(m.get(name))}" for name, _, text in STUDY_IOSTAT)])
    head = ["workload", "row", "MB/s", "model", "off by", *(f"{title}, here / model" for _, title, _ in STUDY_IOSTAT)]
    return markdown_table(head, body, [False, False, *[True] * 6]) if body else ""


def diagnosis(result):
    lines = []
    for workload in workloads_of(result):
        found = findings_of(rows_of(result, workload.id))
        if found:
            lines.append(f"\n**{cell(workload.title)}**\n")
        for row, held in found:
            lines += [f"- {cell(short_name(row))}: `{rule}`. {cell(text)}" for rule, text in held]
    return "\n".join(lines).lstrip("\n") + "\n" if lines else ""


def empty(result):
    kernels = [str((host or {}).get("kernel") or "") for host in (result.get("host"), public_host(result))]
    lines = []
    for reason, rows in by_reason([row for row in result["rows"] if is_empty(row)]):
        names = dict.fromkeys(f"{short_name(row)}" for row in rows)
        lines.append(f"- {cell('; '.join(names))}: {cell(reason.replace(*kernels) if kernels[0] else reason)}")
    return "\n".join(lines) + "\n" if lines else "None.\n"


PARTS = {"machine": machine, "summary": summary, "model": model, "diagnosis": diagnosis, "empty": empty}


def part_of(result, name):
    if result is None:
        return NOTHING
    if name in PARTS:
        return PARTS[name](result) or NOTHING
    if name in BY_ID:
        return workload_table(result, name) or NOTHING
    raise BadResult(f"the document asks for '{name}', which there is none of; there are {', '.join([*PARTS, *BY_ID])}")


def regenerate(text, result):
    """The document with its generated parts made anew; None as the result empties them."""
    opened, closed = text.count("<!-- generated "), text.count("<!-- end -->")
    if opened != closed or len(BLOCK.findall(text)) != opened:
        raise BadResult(f"its markers do not pair: {opened} begin, {closed} end")
    return BLOCK.sub(lambda m: f"<!-- generated {m[1]} -->\n{part_of(result, m[1])}<!-- end -->", text)


def update(path, result):
    """True when the file became another."""
    text = Path(path).read_text(encoding="utf-8")
    fresh = regenerate(text, result)
    if fresh != text:
        write_text(path, fresh)
    return fresh != text


def add_arguments(parser):
    parser.add_argument("result", metavar="FILE|NAME", help="a file, the name of a kept result, or `last`")
    parser.add_argument("--doc", metavar="FILE", default=str(PAPER_MD), help="the document (docs/paper.md)")


def run(args):
    try:
        changed = update(args.doc, store.load(args.result))
    except BadResult as e:
        print(f"mallee bench paper-doc: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"mallee bench paper-doc: {args.doc}: {e.strerror}", file=sys.stderr)
        return 2
    print(f"{args.doc}: {'its tables are new' if changed else 'as it was'}")
    return 0
