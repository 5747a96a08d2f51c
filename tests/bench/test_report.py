# SPDX-License-Identifier: Apache-2.0
"""A result on the terminal, as CSV and as HTML: all rows, marked and escaped."""
import csv
import html.parser
import io
import re
import xml.etree.ElementTree as ElementTree

import pytest

from paper.columns import figure, share
from paper.csv_file import HEADER, csv_text
from paper.figures import FIGURES, network, overview, streaming
from paper.html_file import html_text
from paper.result import is_empty, read, write_json
from paper.svg import Bar, Chart, Line, Section, Scale, draw
from paper.table import print_table

EVIL = '<script>alert("x")</script>&\'\x1b[31m'


def table_of(result):
    out = io.StringIO()
    print_table(result, out, 100)
    return out.getvalue()


def line_with(text, *words):
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert found, f"no line has {words} in\n{text}"
    return found[0]


def row_of(result, configuration, workload):
    return next(row for row in result["rows"] if (row["configuration"], row["workload"]) == (configuration, workload))


class Page(html.parser.HTMLParser):
    """Checks that tags pair; gathers tags and text."""

    VOID = {"meta", "br", "rect", "line"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attrs):
        self.tags.append((name, dict(attrs)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attrs):
        self.tags.append((name, dict(attrs)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)

    def count(self, name):
        return sum(1 for tag, _ in self.tags if tag == name)


# ---- figures of a table ----

@pytest.mark.parametrize("value, text", [(None, "–"), (0, "0"), (0.57, "0.57"), (0.573, "0.57"), (1.3, "1.30"), (71.5, "71.5"), (110, "110"),
                                         (1024, "1,024"), (99.99, "100"), (-2.5, "-2.50")])
def test_a_figure_has_the_digits_that_mean_something(value, text):
    assert figure(value) == text


@pytest.mark.parametrize("value, text", [(None, "–"), (1, "100 %"), (0.98, "98 %"), (0.012, "1.2 %"), (1.05, "105 %")])
def test_a_share_is_in_percent(value, text):
    assert share(value) == text


# ---- the terminal ----

def test_the_table_has_the_studys_columns(disk):
    text = table_of(disk)
    head = line_with(text, "VMM", "driver")
    assert head.split()[:7] == ["VMM", "target", "driver", "MB/s", "avgrq-sz", "avgqu-sz", "%util"]
    assert "of native" in head and "CPU s/GB" in head and "study MB/s" in head and "model MB/s" in head
    row = row_of(disk, "file-scsi", "dd-write")
    line = line_with(text, "SCSI, sparse file", figure(row["mb_s"]))
    assert figure(row["study"]["mb_s"]) in line and figure(row["model"]["mb_s"]) in line and share(row["ratio"]) in line


def test_each_workload_has_a_table_and_its_place_in_the_study(disk):
    text = table_of(disk)
    assert "dd, writing (the study: Table 1)" in text and "dd, reading (the study: Table 2)" in text and "streaming writer (the study: Figure 3)" in text
    assert text.index("Table 1") < text.index("Table 2") < text.index("Figure 3")


def test_an_empty_row_says_why(disk):
    disk["rows"] = [row for row in disk["rows"] if row["workload"] == "dd-write"]
    row = row_of(disk, "xen-file-scsi", "dd-write")
    row["why_empty"] = "no Xen here"
    text = table_of(disk)
    assert "Xen local file SCSI, preallocated file: no Xen here" in text.replace("\n    ", " ")
    # It is no line of the table.
    assert not [line for line in text.splitlines() if line.startswith("  Xen ")]


def test_a_table_of_empty_rows_only(disk):
    disk["rows"] = [row for row in disk["rows"] if is_empty(row)]
    text = table_of(disk)
    assert "empty:" in text and "MB/s" not in text


def test_what_is_empty_everywhere_is_told_once(disk):
    text = table_of(disk).replace("\n    ", " ")
    assert text.count("EC2 EBS proprietary") == 1 and text.index("Empty in every table:") < text.index("EC2 EBS proprietary")
    # NVMe has figures elsewhere, and so is told where it has none.
    assert "NVMe" in line_with(text[text.index("random reads"):], "empty:", "time was up")


def test_no_rows_at_all(disk):
    disk["rows"] = []
    assert table_of(disk) and html_text(disk) and csv_text(disk).count("\r\n") == 1


def test_an_unreliable_row_is_marked_and_explained(disk):
    row = row_of(disk, "disk-scsi-tap", "dd-write")
    assert row["unreliable"]
    text = table_of(disk)
    assert f"?{figure(row['mb_s'])}" in line_with(text, "SCSI/tap")
    assert "? unreliable: their runs lie up to 31 % apart" in text
    row["runs"] = row["runs"][:1]
    assert "? unreliable: a single run tells no spread" in table_of(disk)
    row["unreliable"] = False
    assert "? unreliable" not in table_of(disk)


def test_what_holds_a_row_back_and_what_would_mend_it(disk):
    row = row_of(disk, "disk-scsi-phy", "dd-write")
    row["held_back_by"] = [{"rule": "emulated-device", "why": "Each request leaves the guest seven times", "mend": "Use virtio.", "gain": 2}]
    text = re.sub(r"\s+", " ", table_of(disk))
    assert f"emulated-device. Each request leaves the guest seven times. Use virtio: up to 2.00 times, {figure(row['mb_s'] * 2)} MB/s." in text
    row["held_back_by"] = [{"rule": "none", "why": "The disk is at its limit", "mend": None, "gain": 1}]
    assert "The disk is at its limit" not in table_of(disk)


def test_a_gain_that_is_not_known_is_not_told(disk):
    row_of(disk, "disk-scsi-phy", "dd-write")["held_back_by"] = [{"rule": "guest-cpu", "why": "Its processor is busy", "mend": "Use KVM.", "gain": None}]
    assert "Its processor is busy. Use KVM." in re.sub(r"\s+", " ", table_of(disk))


def test_a_disturbed_machine_is_said_first(disk):
    disk["foreign"] = {"steal_percent": 7.5, "load": 3, "others_cores": 1.2}
    text = table_of(disk)
    assert text.index("7.5 % of the processor") < text.index("dd, writing") and "1.2 cores busy" in text


def test_settings_are_told_as_people_write_them(disk):
    disk["settings"] = {"rate_mb_s": 112 / 3, "direct": True, "net": {"seconds": 2.0}, "rows": ["a", "b"], "peer": None}
    assert "rate mb s 37.3333, direct yes, net seconds 2, rows a, b" in table_of(disk)


def test_control_characters_do_not_reach_the_terminal(disk):
    row_of(disk, "mallee", "dd-write")["driver"] = EVIL
    disk["host"]["cpu"] = EVIL
    assert "\x1b" not in table_of(disk)


def test_random_rows_are_in_operations(disk):
    text = table_of(disk)
    assert "IOPS" in text[text.index("random reads"):text.index("streaming writer")]


def test_a_network_table(net):
    text = table_of(net)
    head = line_with(text, "NIC", "Mb/s")
    assert head.split()[:4] == ["VMM", "NIC", "to", "Mb/s"] and "avgrq-sz" not in text
    assert "trans/s" in text and "TCP from the guest (the study: Figure 4)" in text


# ---- CSV ----

def test_csv_has_a_line_a_row_with_raw_figures(disk):
    lines = list(csv.DictReader(io.StringIO(csv_text(disk), newline="")))
    assert len(lines) == len(disk["rows"]) and list(lines[0]) == HEADER
    for line, row in zip(lines, disk["rows"]):
        assert line["configuration"] == row["configuration"]
        assert line["mb_s"] == ("" if row.get("mb_s") is None else str(row["mb_s"]))
        assert line["study_mb_s"] == (str(row["study"]["mb_s"]) if row["study"] else "")
        assert line["why_empty"] == (row["why_empty"] or "")
    assert [line["unreliable"] for line in lines].count("yes") == sum(1 for row in disk["rows"] if row.get("unreliable"))


def test_csv_runs_no_formula(disk):
    row = row_of(disk, "mallee", "dd-write")
    row["driver"] = '=HYPERLINK("http://x")'
    row["target"] = 'a "quoted", text\nof two lines'
    lines = list(csv.DictReader(io.StringIO(csv_text(disk), newline="")))
    line = next(line for line in lines if line["configuration"] == "mallee")
    assert line["driver"] == '\'=HYPERLINK("http://x")' and line["target"] == row["target"]


# ---- HTML ----

def test_html_is_self_contained_and_well_formed(disk, net):
    for result in (disk, net):
        text = html_text(result)
        page = Page(text)
        assert text.startswith("<!DOCTYPE html>") and page.count("script") == 0 and page.count("link") == 0 and page.count("img") == 0
        assert not re.search(r'(src|href)="(?!#)', text) and "url(" not in text and "@import" not in text
        for name, attrs in page.tags:
            assert not any(attr.startswith("on") for attr in attrs)
            if name == "a":
                assert f'id="{attrs["href"][1:]}"' in text


def test_html_escapes_whatever_a_result_says(disk):
    for row in disk["rows"]:
        row.update(vmm=EVIL, target=EVIL, driver=EVIL + row["configuration"])
        row["why_empty"] = EVIL if row["why_empty"] else None
        row["held_back_by"] = [{"rule": EVIL, "why": EVIL, "mend": EVIL, "gain": EVIL}]
    disk["host"] = {"cpu": EVIL, "kernel": EVIL, "cores": 2, "memory_mb": 1024, "accel": EVIL}
    disk["settings"] = {EVIL: EVIL, "a": {EVIL: [EVIL]}}
    disk["versions"] = {EVIL: EVIL}
    disk["rows"][0]["runs"] = [{EVIL: EVIL}]
    disk["rows"].append({**disk["rows"][0], "workload": EVIL})
    text = html_text(disk)
    page = Page(text)
    assert page.count("script") == 0 and "\x1b" not in text and '"><' not in "".join(page.text)


def test_html_tells_rows_reasons_marks_runs_and_machine(disk):
    disk["rows"][-1].update(why_empty="a reason of its own")
    text = html_text(disk)
    said = " ".join(Page(text).text)
    assert "a reason of its own" in said and disk["host"]["kernel"] in said and disk["date"] in said and disk["versions"]["qemu"] in said
    assert 'class="unreliable"' in text and "unreliable: runs lie 31 % apart" in text
    assert "<details>" in text and "Every run of: dd, writing" in text
    assert "@media print" in text and "prefers-color-scheme: dark" in text


def test_html_tables_name_their_headers(disk):
    page = Page(html_text(disk))
    assert page.count("table") == page.count("caption") > 5
    assert all(attrs.get("scope") in ("row", "col", "colgroup") for name, attrs in page.tags if name == "th")


def test_svg_is_well_formed_and_told_in_words(disk, net):
    charts = [make(result) for result in (disk, net) for _, make, _ in FIGURES]
    drawn = [draw(chart) for chart in charts if chart]
    assert len(drawn) == 3
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        name = "{http://www.w3.org/2000/svg}"
        title, desc = root.find(f"{name}title"), root.find(f"{name}desc")
        assert root.get("role") == "img" and title.text and len(desc.text) > 40
        assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
        height = float(root.get("viewBox").split()[3])
        for rect in root.iter(f"{name}rect"):
            assert float(rect.get("width")) > 0 and float(rect.get("y")) + float(rect.get("height")) <= height


def test_the_overview_is_in_percent_of_the_hosts_local_disk(disk):
    chart = overview(disk)
    bars = {(section.heading, line.label): line.bars for section in chart.sections for line in section.lines}
    here, study = bars["local disk, writing", "KVM's default: SCSI, sparse file"]
    row = row_of(disk, "file-scsi", "dd-write")
    assert here.value == pytest.approx(row["mb_s"] / row_of(disk, "none", "dd-write")["mb_s"] * 100)
    assert study.value == pytest.approx(1.3 / 111 * 100)
    # The study's 83 % lost on EBS are of the local disk, too.
    assert bars["network disk, writing", "KVM's default: SCSI"][1].value == pytest.approx(18.7 / 111 * 100)
    assert bars["network disk, writing", "KVM's default: SCSI"][0].value is None


def test_figures_only_of_what_was_measured(disk, net):
    assert overview(net) is None and streaming(net) is None and network(disk) is None
    assert len(network(net).sections) == 2


def test_a_host_far_faster_than_its_guests_is_told_in_words(net):
    section = network(net).sections[0]
    assert section.heading == "with its own host (the host itself: 11,800 and 11,800 Mb/s)" and len(section.lines) == 3
    for row in net["rows"]:
        if row["configuration"] == "none" and "mbit_s" in row:
            row["mbit_s"] = 940
    section = network(net).sections[0]
    assert section.heading == "with its own host" and [line.label for line in section.lines][0] == "the host itself"


@pytest.mark.parametrize("top, ticks", [(100, 6), (0, 2), (1.3, 8), (940, 6), (12100, 8), (0.004, 5)])
def test_an_axis_ends_at_or_behind_its_longest_bar(top, ticks):
    scale = Scale(Chart("c", "t", "d", "u", ["s"], [Section("", [Line("l", [Bar(top, "")])])], None))
    assert scale.top >= top and 2 <= len(scale.ticks()) <= ticks and scale.ticks()[-1] == pytest.approx(scale.top)


# ---- through the command ----

def test_report_writes_what_was_asked_for(bench, saved, disk, tmp_path):
    done = bench("report", saved(disk), "--html", tmp_path / "r.html", "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").read_text() == html_text(disk)
    assert (tmp_path / "r.csv").read_bytes().decode() == csv_text(disk) and read(tmp_path / "r.json") == disk


def test_report_shows_tables_when_nothing_else_is_asked_for(bench, saved, disk):
    done = bench("report", saved(disk))
    assert done.returncode == 0 and "dd, writing (the study: Table 1)" in done.stdout


def test_a_report_that_cannot_be_written(bench, saved, disk, tmp_path):
    done = bench("report", saved(disk), "--html", tmp_path / "none" / "r.html")
    assert done.returncode == 2 and "No such file" in done.stderr


def test_what_is_written_is_whole_or_not_there(disk, tmp_path):
    path = tmp_path / "r.json"
    path.write_text("before")
    disk["rows"][0]["mb_s"] = float("nan")
    with pytest.raises(ValueError):
        write_json(disk, path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["r.json"]
