# SPDX-License-Identifier: Apache-2.0
"""A result as one HTML file that needs nothing else: figures, tables, diagnosis, the model, and every run."""
from paper.columns import by_reason, columns_of, figure, share, whole, workloads_of
from paper.diagnosis import UNITS, findings_of, short_name
from paper.figures import FIGURES, by_configuration
from paper.machine import flat, host_text, notes_of, settings_text, versions_text
from paper.markup import Markup, join, tag
from paper.result import is_empty, is_net, main_figure, rows_of, spread_of, write_text
from paper.style import STYLE
from paper.svg import draw

TITLES = {"disk": "What guests get of the disk", "net": "What guests get of the network", "paper": "What guests get of disk and network"}


def definition_list(pairs, css):
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs if value), class_=css)


def capital(title):
    """At the head of a line; dd keeps its name."""
    return title if title.startswith("dd") else title[:1].upper() + title[1:]


def anchor(workload):
    return "t-" + "".join(c if c.isalnum() else "-" for c in workload.id)


# ---- tables ----

def table(caption, head, body):
    """Of cells that are tags already; the head may have several lines. Headers name columns, and a row by its first cell."""
    lines = head if head and isinstance(head[0], list) else [head]
    return tag("div", tag("table", tag("caption", caption), tag("thead", *(tag("tr", *line) for line in lines)), tag("tbody", *body)), class_="wide", tabindex=0,
               role="region", aria_label=caption)


def head_cell(title, about=None, numeric=True):
    return tag("th", title, scope="col", class_="n" if numeric else None, title=about)


def data_cell(text, first, numeric):
    return tag("th" if first else "td", text, scope="row" if first else None, class_="n" if numeric else None)


def unreliable_text(row):
    spread = spread_of(row)
    return f"unreliable: runs lie {spread:.0f} % apart" if spread is not None else "unreliable: a single run"


def row_class(row):
    return "ours" if row["configuration"] in ("mallee", "net-mallee") else "native" if row["configuration"] in ("none", "net-none") else None


def filled_row(row, columns):
    cells, marked = [], False
    for i, column in enumerate(columns):
        text = column.text(column.value(row))
        if row.get("unreliable") and column.numeric and not marked:
            text, marked = join([text, " ", tag("abbr", "?", title=unreliable_text(row), class_="unreliable")]), True
        cells.append(data_cell(text, i == 0, column.numeric))
    return tag("tr", *cells, class_=row_class(row))


def empty_row(row, columns):
    names = [column for column in columns if not column.numeric]
    cells = [data_cell(column.text(column.value(row)), i == 0, False) for i, column in enumerate(names)]
    study = next(((column, column.value(row)) for column in columns if column.key.startswith("study_")), (None, None))
    why = f"{row.get('why_empty') or 'not measured'}" + (f" (the study: {figure(study[1])} {study[0].title.split()[-1]})" if study[1] is not None else "")
    return tag("tr", *cells, tag("td", why, colspan=len(columns) - len(names), class_="why"), class_=row_class(row))


def workload_table(rows, workload):
    columns = columns_of([row for row in rows if not is_empty(row)] or rows)
    head = [head_cell(column.title, column.about, column.numeric) for column in columns]
    body = [(empty_row if is_empty(row) else filled_row)(row, columns) for row in rows]
    about = capital(workload.about) + "." if workload.about else workload.title
    return table(about, head, body)


def held_back(rows):
    findings = findings_of(rows)
    if not findings:
        return None
    parts = []
    for row, held in findings:
        parts.append(tag("dt", short_name(row)))
        parts += [tag("dd", tag("code", rule), " ", text) for rule, text in held]
    return join([tag("p", tag("strong", "What holds each row back")), tag("dl", *parts, class_="held")])


def workload_section(result, workload):
    rows = rows_of(result, workload.id)
    title = capital(workload.title) + (f" (the study: {workload.table})" if workload.table else "")
    return tag("section", tag("h3", title), workload_table(rows, workload), held_back(rows), id=anchor(workload))


# ---- the model ----

MODEL_COLUMNS = [("mb_s", "MB/s", figure), ("iops", "IOPS", whole), ("mbit_s", "Mb/s", whole), ("transactions_s", "trans/s", whole),
                 ("avgrq_sectors", "avgrq-sz", whole), ("avgqu", "avgqu-sz", figure), ("util_percent", "%util", whole)]


def error_text(measured, expected):
    return f"{(expected / measured - 1) * 100:+.0f} %" if measured and expected is not None else figure(None)


def told_head(used):
    """Two lines: the figures, and under each who says it."""
    over = [tag("td", "")] + [tag("th", title, scope="colgroup", colspan=4, class_="group") for _, title, _ in used]
    under = [head_cell("row", numeric=False)]
    for _ in used:
        under += [head_cell("here"), head_cell("model"), head_cell("off by", "the model, from what was measured here"), head_cell("study")]
    return [over, under]


def told_row(row, used):
    cells = [data_cell(short_name(row), True, False)]
    for name, _, text in used:
        measured, expected, then = row.get(name), (row.get("model") or {}).get(name), (row.get("study") or {}).get(name)
        cells += [data_cell(cell, False, True) for cell in (text(measured), text(expected), error_text(measured, expected), text(then))]
    return tag("tr", *cells, class_=row_class(row))


def model_table(result, workload):
    rows = [row for row in rows_of(result, workload.id) if not is_empty(row)]
    if not any(row.get("model") for row in rows):
        return None
    used = [c for c in MODEL_COLUMNS if any((row.get("model") or {}).get(c[0]) is not None for row in rows)]
    return table(capital(workload.title), told_head(used), [told_row(row, used) for row in rows]) if used else None


def model_section(result):
    tables = [part for part in (model_table(result, workload) for workload in workloads_of(result)) if part]
    if not tables:
        return None
    return tag("section", tag("h2", "Measured, expected, and the study"),
               tag("p", "From the disk's parameters, request size, depth, latency of the path and processor time a request the model expects "
                        "these figures; docs/model.md derives it.", class_="about"), *tables, id="model")


# ---- figures, summary, runs ----

def figures_section(result):
    drawn = [(name, make(result), then) for name, make, then in FIGURES]
    parts = [tag("figure", draw(chart), tag("figcaption", tag("strong", chart.title + "."), f" As the study's {name}. {then}"))
             for name, chart, then in drawn if chart]
    return tag("section", tag("h2", "Figures"), *parts, id="figures") if parts else None


SUMMARY = [("none", "the host"), ("file-scsi", "KVM's old default"), ("disk-virtio-phy", "virtio, stock"), ("mallee", "Mallee"),
           ("net-virtio-phy", "network disk, stock"), ("net-mallee", "network disk, Mallee")]


def summary_table(result):
    workloads = [w for w in workloads_of(result) if by_configuration(rows_of(result, w.id)).get("mallee", {}).get("ratio") is not None
                 and not is_net({"workload": w.id})]
    if not workloads:
        return None
    found = [(workload, by_configuration(rows_of(result, workload.id))) for workload in workloads]
    shown = [c for c in SUMMARY[1:] if any(rows.get(c[0], {}).get("ratio") is not None for _, rows in found)]
    body = []
    for workload, rows in found:
        name, value = main_figure(rows["none"]) if "none" in rows else ("mb_s", None)
        cells = [data_cell(workload.title, True, False), data_cell(f"{figure(value)} {UNITS[name]}", False, True)]
        body.append(tag("tr", *cells, *(data_cell(share(rows.get(c, {}).get("ratio")), False, True) for c, _ in shown)))
    head = [head_cell("", numeric=False), head_cell(SUMMARY[0][1])] + [head_cell(title) for _, title in shown]
    return table("Guests' rates as a share of the host's own, which the first column tells", head, body)


def run_cells(run):
    return "; ".join(f"{name} {value if not isinstance(value, float) else round(value, 3)}" for name, value in flat(run))


def runs_section(result):
    parts = []
    for workload in workloads_of(result):
        body = [tag("tr", data_cell(short_name(row), True, False), data_cell(str(i + 1), False, True), tag("td", run_cells(run)))
                for row in rows_of(result, workload.id) for i, run in enumerate(row.get("runs") or [])]
        if body:
            head = [head_cell("row", numeric=False), head_cell("run"), head_cell("figures", numeric=False)]
            parts.append(tag("details", tag("summary", f"{workload.title}: {len(body)} runs"), table(f"Every run of: {workload.title}", head, body)))
    return tag("section", tag("h2", "Every run"), *parts, id="runs", class_="runs") if parts else None


def empty_section(result):
    groups = by_reason([row for row in result["rows"] if is_empty(row)])
    if not groups:
        return None
    items = []
    for reason, rows in groups:
        names = dict.fromkeys(short_name(row) for row in rows)
        items.append(tag("li", tag("strong", "; ".join(names)), f": {reason}"))
    return tag("section", tag("h2", "What was not measured, and why"), tag("ul", *items), id="empty")


def header(result):
    pairs = [("measured", result.get("date")), ("host", host_text(result.get("host"))), ("versions", versions_text(result)),
             ("settings", settings_text(result)),
             ("meanwhile", ", ".join(f"{name} {value}" for name, value in flat(result.get("foreign"))))]
    notes = notes_of(result)
    return tag("header", tag("h1", TITLES[result["kind"]]), definition_list(pairs, "machine"),
               tag("ul", *(tag("li", note) for note in notes), class_="notes") if notes else None)


def navigation(result):
    links = [(anchor(w), w.title) for w in workloads_of(result)]
    return tag("nav", tag("ul", *(tag("li", tag("a", title, href="#" + to)) for to, title in links)), aria_label="Tables")


def html_text(result):
    title = f"{TITLES[result['kind']]} – Mallee"
    tables = tag("section", tag("h2", "Tables"), navigation(result), *(workload_section(result, w) for w in workloads_of(result)), id="tables")
    body = [header(result), tag("main", summary_table(result), figures_section(result), tables, model_section(result), empty_section(result),
                                runs_section(result)),
            tag("footer", tag("p", "Made by mallee bench. avgrq-sz is in sectors of 512 bytes; %util is the share of time in which the disk had "
                                   "something to do; a figure marked ? is unreliable.", class_="about"))]
    head = tag("head", tag("meta", charset="utf-8"), tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("title", title), tag("style", Markup(STYLE)))
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def write_html(result, path):
    write_text(path, html_text(result))
