# SPDX-License-Identifier: Apache-2.0
"""A result on a terminal: one table a workload, in the study's columns, then what holds its rows back."""
import shutil
import sys
import textwrap

from paper.columns import by_reason, columns_of, workloads_of
from paper.diagnosis import findings_of, short_name
from paper.machine import notes_of, settings_text, summary_of
from paper.markup import plain
from paper.result import is_empty, key_of, rows_of, spread_of, why_empty

UNRELIABLE = "?"


def cells_of(row, columns):
    """Texts of a row; the mark of an unreliable one stands before its first figure."""
    cells = [column.text(column.value(row)) for column in columns]
    if row.get("unreliable"):
        first = next(i for i, column in enumerate(columns) if column.numeric)
        cells[first] = UNRELIABLE + cells[first]
    return cells


def lines_of_table(rows, columns):
    head = [column.title for column in columns]
    body = [cells_of(row, columns) for row in rows]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    for i, line in enumerate([head, ["-" * width for width in widths], *body]):
        yield "  ".join(cell.rjust(width) if column.numeric else cell.ljust(width)
                        for cell, width, column in zip(line, widths, columns)).rstrip()


def wrapped(text, width, indent, first=""):
    return textwrap.fill(text, width, initial_indent=first or indent, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


def unreliable_line(rows):
    marked = [row for row in rows if row.get("unreliable")]
    if not marked:
        return None
    wide = [spread for spread in map(spread_of, marked) if spread is not None]
    why = [f"their runs lie up to {max(wide):.0f} % apart"] if wide else []
    why += ["a single run tells no spread"] if len(wide) < len(marked) else []
    return f"{UNRELIABLE} unreliable: {'; '.join(why)}"


def empty_throughout(result):
    """Configurations (of networks: with whom they were measured) without a single figure: told once, and not in each table."""
    filled = {key_of(row)[::2] for row in result["rows"] if not is_empty(row)}
    rows = {}
    for row in result["rows"]:
        if key_of(row)[::2] not in filled:
            rows.setdefault((key_of(row)[::2], why_empty(row)), row)
    return list(rows.values())


def say_empty(rows, say, width):
    for reason, group in by_reason(rows):
        say(wrapped(f"empty: {'; '.join(short_name(row) for row in group)}: {reason}", width, "    ", "  "))


def print_workload(result, workload, say, width, told_later):
    rows = rows_of(result, workload.id)
    filled, empty = [row for row in rows if not is_empty(row)], [row for row in rows if is_empty(row)]
    say()
    say(f"{workload.title}{f' (the study: {workload.table})' if workload.table else ''}")
    if workload.about:
        say(f"  {workload.about}")
    say()
    if filled:
        for line in lines_of_table(filled, columns_of(filled)):
            say("  " + line)
        if line := unreliable_line(filled):
            say("  " + line)
    say_empty([row for row in empty if key_of(row)[::2] not in told_later], say, width)
    findings = findings_of(filled)
    if findings:
        say("\n  What holds them back:")
    for row, held in findings:
        for i, (rule, text) in enumerate(held):
            say(wrapped(f"{short_name(row)}: {rule}. {text}" if i == 0 else f"{rule}. {text}", width, "      ", "    " if i == 0 else ""))


def print_table(result, file=None, width=None):
    """All of it. The width is that of text; tables are as wide as they are."""
    out = file or sys.stdout
    width = width or max(60, min(120, shutil.get_terminal_size((100, 24)).columns))

    def say(text=""):
        print("\n".join(map(plain, text.split("\n"))), file=out)

    for line in (summary_of(result), settings_text(result), *notes_of(result)):
        if line:
            say(wrapped(line, width, "  ", " ").strip())
    empty = empty_throughout(result)
    told_later = {key_of(row)[::2] for row in empty}
    for workload in workloads_of(result):
        print_workload(result, workload, say, width, told_later)
    if empty:
        say("\nEmpty in every table:\n")
        say_empty(empty, say, width)
