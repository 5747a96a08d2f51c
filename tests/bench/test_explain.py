# SPDX-License-Identifier: Apache-2.0
"""`mallee bench explain`: a recorded result goes in, and what holds each row back comes out; what is no result is refused."""
import copy
import json
import os
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
MALLEE = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve() / "mallee"
RECORDED = Path(__file__).parent / "data" / "explain.json"


def run(text, *arguments):
    data = text if isinstance(text, bytes) else text.encode()
    return subprocess.run([MALLEE, "bench", "explain", *arguments], input=data, capture_output=True, timeout=60, check=False)


def explain(result):
    done = run(json.dumps(result))
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def recorded():
    return json.loads(RECORDED.read_text())


@pytest.fixture(scope="module")
def explained():
    return explain(json.loads(RECORDED.read_text()))


def held(result, configuration, workload, target=None):
    rows = [row for row in result["rows"] if row["configuration"] == configuration and row["workload"] == workload
            and target in (None, row.get("target"))]
    assert len(rows) == 1
    return {one["rule"]: one["gain"] for one in rows[0]["held_back_by"]}


@pytest.mark.parametrize(("row", "rules"), [
    # The study's tables.
    (("none", "dd-write"), {"none": 1}),
    (("file-scsi", "dd-write"), {"small-requests": 15.1, "sparse": 2.92}),
    (("disk-scsi-phy", "dd-write"), {"emulated-device": 1.538}),
    (("disk-scsi-tap", "dd-write"), {"emulated-device": 1.586}),
    (("disk-virtio-phy", "dd-write"), {"none": 1}),
    (("xen-disk-scsi-phy", "dd-write"), {"emulated-device": 1.55, "small-requests": 1.306}),
    (("xen-disk-scsi-tap", "dd-write"), {"small-requests": 1.583}),
    (("none", "dd-read"), {"none": 1}),
    (("disk-scsi-phy", "dd-read"), {"queue-starved": 1.471, "emulated-device": 1.081}),
    (("disk-scsi-tap", "dd-read"), {"queue-starved": 1.613, "emulated-device": 1.342, "double-caching": 1.243}),
    (("disk-virtio-phy", "dd-read"), {"queue-starved": 1.417}),
    (("disk-virtio-tap", "dd-read"), {"queue-starved": 1.419}),
    (("xen-disk-scsi-phy", "dd-read"), {"small-requests": 2.43, "emulated-device": 2.215}),
    # What else was measured.
    (("mallee", "direct-read"), {"none": 1}),
    (("file-scsi", "direct-write"), {"sparse": 3.92, "small-requests": 3.56, "emulated-device": 1.14}),
    (("net-virtio-phy", "dd-read"), {"frame-size": 5.3}),
    (("mallee", "dd-read"), {"volume-limit": 11.1}),
    (("disk-virtio-phy", "rand-read"), {"none": 1}),
    (("disk-virtio-phy", "aio8-write"), {"guest-cpu": 1.538}),
    (("e1000", "tcp-to-guest", "peer"), {"emulated-device": 4.5}),
    (("e1000", "tcp-to-guest", "host"), {"none": 1}),  # nobody told that it is emulated
    (("e1000", "request-response"), {"guest-cpu": 5, "emulated-device": 2.667}),
])
def test_rows(explained, row, rules):
    found = held(explained, *row)
    assert list(found) == list(rules)
    for rule, gain in rules.items():
        assert found[rule] == pytest.approx(gain, rel=0.02)


def test_findings_are_sentences(explained):
    for row in explained["rows"]:
        for one in row["held_back_by"]:
            assert set(one) == {"rule", "why", "mend", "gain"}
            assert one["why"].endswith(".") and one["mend"].endswith(".")


def test_all_else_stays(recorded, explained):
    assert list(explained) == list(recorded)
    for before, after in zip(recorded["rows"], explained["rows"], strict=True):
        assert {k: v for k, v in after.items() if k not in ("held_back_by", "model")} == \
               {k: v for k, v in before.items() if k not in ("held_back_by", "model")}
    assert explained["settings"]["scale"] == 0.1
    assert b'"scale": 0.1,' in run(RECORDED.read_text()).stdout


def test_done_again_it_is_the_same(explained):
    assert explain(explained) == explained


def test_an_empty_row_is_not_explained(explained):
    assert held(explained, "disk-nvme", "dd-read") == {}


@pytest.mark.parametrize(("of_the_other_row", "fires"), [
    ({"spread_percent": 10, "unreliable": False}, True),
    ({"spread_percent": 20, "unreliable": True}, True),
    ({"spread_percent": 30, "unreliable": True}, False),
    ({"spread_percent": 0, "unreliable": True, "runs": [{"mb_s": 70.5, "seconds": 1}]}, False),
    ({"spread_percent": 0, "unreliable": True, "mb_s": 80.0, "runs": [{"mb_s": 80.0, "seconds": 1}]}, True),
])
def test_a_difference_within_the_spread_is_none(recorded, of_the_other_row, fires):
    """phy got 70.5 MB/s and tap 56.7."""
    for row in recorded["rows"]:
        if row["configuration"] == "disk-scsi-phy":
            row.update(of_the_other_row)
    assert ("double-caching" in held(explain(recorded), "disk-scsi-tap", "dd-read")) == fires


def test_a_busy_host_hides_no_starved_queue(recorded):
    """What fills it may be others' work."""
    for row in recorded["rows"]:
        row["path"]["host_cpu_percent"] = 99
    assert held(explain(recorded), "disk-virtio-phy", "dd-read") == pytest.approx({"host-cpu": 1.417, "queue-starved": 1.417}, rel=0.01)


def test_the_disk_is_known_by_the_hosts_rows(recorded):
    """Without them nobody knows what the disk could do, and rules that need that stay silent."""
    recorded["rows"] = [row for row in recorded["rows"] if row["configuration"] != "none"]
    explained = explain(recorded)
    assert held(explained, "file-scsi", "dd-write") == {"none": 1}
    # Mallee's own row says what its disk does.
    assert "volume-limit" in held(explained, "mallee", "dd-read")


def test_figures_may_be_unknown():
    row = {"configuration": "mallee", "workload": "dd-read", "mb_s": 50, "avgqu": None, "path": None, "runs": None, "ratio": None}
    explained = explain({"version": 1, "kind": "disk", "rows": [row]})
    assert held(explained, "mallee", "dd-read") == {"none": 1}
    assert "No rule explains" in explained["rows"][0]["held_back_by"][0]["why"]
    assert explain({"version": 1, "kind": "net", "rows": []})["rows"] == []


def test_an_unknown_gain_is_null():
    row = {"configuration": "mallee", "workload": "dd-read", "mb_s": 10, "path": {"limit_mb_s": 10}}
    assert held(explain({"version": 1, "kind": "disk", "rows": [row]}), "mallee", "dd-read") == {"volume-limit": None}


ROW = {"configuration": "mallee", "workload": "dd-read", "mb_s": 50}


def result_of(**changes):
    return json.dumps({"version": 1, "kind": "disk", "rows": [{**ROW, **changes}]})


@pytest.mark.parametrize(("text", "said"), [
    ("", "no JSON"),
    ("{", "no JSON: line 1"),
    ("[]", "no object"),
    ("nonsense\n", "no JSON"),
    (b"\xff\xfe{}", "no JSON"),
    ('{"version": 1, "version": 1}', "duplicate"),
    ('{"version": 1} {}', "end of file expected"),
    ("[" * 100000, "no JSON"),
    ("{}", "version 1"),
    ('{"version": 2, "kind": "disk", "rows": []}', "version 1"),
    ('{"version": "1", "kind": "disk", "rows": []}', "version 1"),
    ('{"version": 1, "rows": []}', "kind"),
    ('{"version": 1, "kind": "tape", "rows": []}', "disk, net, paper"),
    ('{"version": 1, "kind": "disk"}', "no list of rows"),
    ('{"version": 1, "kind": "disk", "rows": {}}', "no list of rows"),
    ('{"version": 1, "kind": "disk", "rows": [7]}', "Row 1 is no object"),
    ('{"version": 1, "kind": "disk", "rows": [{"workload": "dd-read"}]}', "Row 1: configuration is missing"),
    (result_of(workload=7), "Row 1: workload is missing or no text"),
    (result_of(mb_s="fast"), "Row 1 (mallee, dd-read): mb_s is no number"),
    (result_of(util_percent=True), "util_percent is no number"),
    (result_of(why_empty=1), "why_empty is no text"),
    (result_of(path=[]), "path is no object"),
    (result_of(path={"mtu": "1500"}), "path.mtu is neither a number nor true or false"),
    (result_of(path={"flushes": []}), "path.flushes"),
    (result_of(runs={}), "runs is no list"),
    (result_of(runs=[{"seconds": "long"}]), "run 1"),
    (result_of(mb_s=float("nan")), "no JSON"),
    (result_of(mb_s=float("inf")), "no JSON"),
    (result_of(mb_s=50).replace("50", "1e999"), "no JSON"),
    (result_of(configuration="x" * 5000, mb_s="fast"), "mb_s is no number"),
])
def test_what_is_no_result_is_refused(text, said):
    done = run(text)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mallee bench explain: ") and said in lines[0]


def test_odd_figures_break_nothing(recorded):
    """Numbers that make no sense are still numbers."""
    for value in (0, -1, 1e308, 1e-308, 10**18):
        odd = copy.deepcopy(recorded)
        for row in odd["rows"]:
            for key, old in row.items():
                if isinstance(old, (int, float)) and not isinstance(old, bool):
                    row[key] = value
            row["path"] = {key: value for key in row["path"]}
        assert len(explain(odd)["rows"]) == len(odd["rows"])


def test_more_than_any_result_is_refused():
    done = run(b" " * (65 << 20))
    assert done.returncode == 2 and b"64 MiB" in done.stderr


def test_it_takes_no_arguments():
    assert run("", "result.json").returncode == 64
    done = run("", "--help")
    assert done.returncode == 0 and b"held_back_by" in done.stdout


def test_a_full_disk_is_told():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([MALLEE, "bench", "explain"], input=RECORDED.read_bytes(), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1 and b"Cannot write" in done.stderr


# ---- the command itself ----

def bench(*arguments):
    return subprocess.run([MALLEE, "bench", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_other_commands_are_the_scripts():
    done = bench("report", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: mallee bench report")
    assert bench("nothing-of-that-name").returncode == 2
    assert bench().returncode == 2
    listed = bench("--help")
    assert listed.returncode == 0
    scripts = bench("help").stdout.split("\n\n")[1].splitlines()
    for name in [line.split()[0] for line in scripts] + ["explain", "model"]:
        assert f"\n  {name} " in listed.stdout


def test_each_rule_is_documented():
    """docs/diagnosis.md has a line for each rule that the program may name, and names none that it does not."""
    text = (SOURCE / "docs" / "diagnosis.md").read_text().split("## The rules")[1].split("## Where")[0]
    documented = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")} - {"Rule"}
    source = (SOURCE / "src" / "measure" / "diagnose.c").read_text()
    table = source.split("static const struct rule rules[]")[1]
    assert documented == {line.strip()[3:-2] for line in table.splitlines() if line.startswith('\t{ "')}


def test_the_disks_best_request_is_of_its_direction():
    """At depth 8 small requests are as fast as large ones: the best request is the largest that is about as fast."""
    host = [("dd-write", 110, 1000), ("aio8-write", 111, 128), ("dd-read", 108, 512), ("aio8-read", 111, 128), ("rand-write", 111, 5000)]
    rows = [{"configuration": "none", "workload": workload, "mb_s": mb_s, "avgrq_sectors": sectors, "ratio": 1} for workload, mb_s, sectors in host]
    slow = {"configuration": "mallee", "mb_s": 40, "util_percent": 95, "avgrq_sectors": 130}
    explained = explain({"version": 1, "kind": "disk", "rows": [*rows, {**slow, "workload": "dd-write"}, {**slow, "workload": "dd-read"}]})
    assert "best avgrq-sz 1000" in explained["rows"][-2]["held_back_by"][0]["why"]
    assert held(explained, "mallee", "dd-read") == {"none": 1}
