# SPDX-License-Identifier: Apache-2.0
"""Compare two results row by row: both medians, their ratio, and whether they differ by more than their runs do among themselves.

A difference counts when it is larger than the spread of either side (from a row's slowest run to its fastest). A row of a single run
has no spread: then ten percent is taken. Without names: the kept results. Exit code: 0 no row lost, 1 one did, 2 bad input.
"""
import sys
from collections import namedtuple

from paper import store
from paper.columns import BY_ID, NONE, figure, workloads_of
from paper.diagnosis import UNITS, short_name
from paper.machine import flat, host_text
from paper.markup import plain
from paper.result import BadResult, is_empty, key_of, main_figure, rows_of, spread_of, why_empty

ASSUMED_SPREAD = 10.0   # percent, of a row of one run

Pair = namedtuple("Pair", "workload row before after ratio limit assumed verdict unit")


def limit_of(a, b):
    """The difference that counts, in the rows' own unit."""
    parts = []
    for row in (a, b):
        spread = spread_of(row)
        parts.append(main_figure(row)[1] * (ASSUMED_SPREAD if spread is None else spread) / 100)
    return max(parts)


def judge(a, b):
    """What became of a row: (ratio, limit, verdict)."""
    before, after = main_figure(a)[1], main_figure(b)[1]
    limit = limit_of(a, b)
    if abs(after - before) <= limit:
        verdict = "same"
    else:
        verdict = "better" if after > before else "worse"
    return (after / before if before else None), limit, verdict


def pairs_of(first, second):
    """Rows that both have figures of, in the order of the first."""
    theirs = {key_of(row): row for row in second["rows"]}
    pairs = []
    for workload in workloads_of(first):
        for row in rows_of(first, workload.id):
            other = theirs.get(key_of(row))
            if other is None or is_empty(row) or is_empty(other) or main_figure(row)[0] != main_figure(other)[0]:
                continue
            ratio, limit, verdict = judge(row, other)
            assumed = spread_of(row) is None or spread_of(other) is None
            name, value = main_figure(row)
            pairs.append(Pair(workload, row, value, main_figure(other)[1], ratio, limit, assumed, verdict, UNITS[name]))
    return pairs


def only_in(first, second):
    """[(row, why not)]: measured in the first and not in the second."""
    theirs = {key_of(row): row for row in second["rows"]}
    lost = []
    for row in first["rows"]:
        other = theirs.get(key_of(row))
        if not is_empty(row) and (other is None or is_empty(other)):
            lost.append((row, "no such row" if other is None else why_empty(other)))
    return lost


def differences(first, second):
    """What makes the two incomparable, or less comparable: hosts, kernels, versions, settings."""
    lines = []
    hosts = [host_text(result.get("host")) for result in (first, second)]
    if hosts[0] != hosts[1]:
        lines.append(f"host: {hosts[0] or 'unknown'} | {hosts[1] or 'unknown'}")
    for part in ("versions", "settings"):
        a, b = (dict(flat(result.get(part))) for result in (first, second))
        lines += [f"{part}, {name}: {a.get(name, NONE)} | {b.get(name, NONE)}" for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return lines


def pair_lines(pairs):
    """A table a workload."""
    width = max(len(short_name(pair.row)) for pair in pairs)
    workload = None
    for pair in pairs:
        if pair.workload != workload:
            workload = pair.workload
            yield ""
            yield f"{workload.title}, {pair.unit}"
            yield f"  {'':<{width}}  {'A':>8}  {'B':>8}  {'B/A':>5}  {'counts above':>12}"
        ratio = NONE if pair.ratio is None else f"{pair.ratio:.2f}"
        said = "" if pair.verdict == "same" else pair.verdict.upper() if pair.verdict == "worse" else pair.verdict
        yield (f"  {short_name(pair.row):<{width}}  {figure(pair.before):>8}  {figure(pair.after):>8}  {ratio:>5}  "
               f"{'±' + figure(pair.limit):>12}  {said}").rstrip()


def missing_lines(title, rows):
    if rows:
        yield ""
        yield title
    for row, why in rows:
        title = BY_ID[row["workload"]].title if row["workload"] in BY_ID else row["workload"]
        yield f"  {title}, {short_name(row)}: {why}"


def summary_line(pairs):
    count = {verdict: sum(1 for pair in pairs if pair.verdict == verdict) for verdict in ("worse", "better", "same")}
    single = sum(1 for pair in pairs if pair.assumed)
    text = f"{len(pairs)} rows compared: {count['worse']} worse, {count['better']} better, {count['same']} within the spread"
    return text + (f"; {single} with a single run, whose spread was taken as {ASSUMED_SPREAD:.0f} %" if single else "")


def lines_of(first, second, names):
    """The whole comparison, and how many rows are worse."""
    pairs = pairs_of(first, second)
    lines = [f"A: {names[0]}, {first.get('date', 'undated')}", f"B: {names[1]}, {second.get('date', 'undated')}"]
    found = differences(first, second)
    if found:
        lines += ["", "They were not measured alike (A | B):", *(f"  {line}" for line in found)]
    lines += list(pair_lines(pairs)) if pairs else ["", "No row is in both."]
    lines += missing_lines("Only in A:", only_in(first, second))
    lines += missing_lines("Only in B:", only_in(second, first))
    return lines + ["", summary_line(pairs)], sum(1 for pair in pairs if pair.verdict == "worse")


def add_arguments(parser):
    parser.add_argument("results", nargs="*", metavar="FILE|NAME", help="two: before and after; a file, a kept result's name, or `last`")


def run(args):
    if not args.results:
        print(store.list_text())
        return 0
    if len(args.results) != 2:
        print(f"mallee bench compare: takes two results, not {len(args.results)}", file=sys.stderr)
        return 2
    try:
        first, second = (store.load(name) for name in args.results)
    except BadResult as e:
        print(f"mallee bench compare: {e}", file=sys.stderr)
        return 2
    if not {key_of(row) for row in first["rows"]} & {key_of(row) for row in second["rows"]}:
        print(f"mallee bench compare: no row is in both: one is of {first['kind']}, the other of {second['kind']}", file=sys.stderr)
        return 2
    lines, worse = lines_of(first, second, args.results)
    for line in lines:
        print(plain(line))
    return 1 if worse else 0
