# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/paper.md are made of a result, and nothing else of it is touched; how experiments become one result."""
import re

import pytest

from paper import doc, suite
from paper.columns import BY_ID, figure
from paper.result import BadResult

TEXT = """# Title

Before, with a | and a <!-- comment -->.

<!-- generated dd-write -->
old
<!-- end -->

Between.

<!-- generated machine -->
<!-- end -->
After.
"""


def test_only_what_is_between_the_markers_changes(disk):
    fresh = doc.regenerate(TEXT, disk)
    assert "old" not in fresh and fresh.startswith(TEXT[:TEXT.index("old")]) and fresh.endswith("<!-- end -->\nAfter.\n")
    assert "\n\nBetween.\n\n" in fresh and disk["host"]["cpu"] in fresh


def test_a_second_time_changes_nothing(disk):
    fresh = doc.regenerate(TEXT, disk)
    assert doc.regenerate(fresh, disk) == fresh


def test_without_a_result_it_says_how_to_get_one(disk):
    assert doc.regenerate(doc.regenerate(TEXT, disk), None).count("run `make bench-paper`") == 2


def test_a_table_has_ours_and_the_studys_figures(disk):
    lines = doc.workload_table(disk, "dd-write").splitlines()
    assert "study avgrq-sz" in lines[0] and len({line.count(" | ") for line in lines if "---" not in line}) == 1
    line = next(line for line in lines if "SCSI, sparse file" in line)
    row = next(row for row in disk["rows"] if row["configuration"] == "file-scsi" and row["workload"] == "dd-write")
    assert figure(row["mb_s"]) in line and "| 1.30 | 30 |" in line
    assert "empty" in next(line for line in lines if line.startswith("| Xen"))
    assert " ? |" in next(line for line in lines if "SCSI/tap" in line)


def test_text_cannot_break_out_of_a_table(disk):
    disk["rows"][0]["driver"] = "a|b\n<!-- end --> `x` [y](z)"
    table = doc.workload_table(disk, "dd-write")
    assert "a\\|b \\<!-- end" in table and doc.regenerate(doc.regenerate(TEXT, disk), disk) == doc.regenerate(TEXT, disk)


@pytest.mark.parametrize("text", ["<!-- generated dd-write -->\n", "<!-- end -->\n", "<!-- generated no-such -->\n<!-- end -->\n",
                                  "<!-- generated dd-write -->\n<!-- generated machine -->\n<!-- end -->\n<!-- end -->\n"])
def test_markers_that_do_not_pair_are_refused(disk, text):
    with pytest.raises(BadResult):
        doc.regenerate(text, disk)


def test_the_command(bench, saved, disk, tmp_path):
    path = tmp_path / "paper.md"
    path.write_text(TEXT)
    done = bench("paper-doc", saved(disk), "--doc", path)
    assert done.returncode == 0 and "new" in done.stdout and path.read_text() == doc.regenerate(TEXT, disk)
    assert "as it was" in bench("paper-doc", saved(disk), "--doc", path).stdout
    assert bench("paper-doc", saved(disk), "--doc", tmp_path / "absent").returncode == 2


def test_the_document_itself_has_every_table(disk, net):
    text = doc.PAPER_MD.read_text()
    merged = suite.merge([disk, net])
    fresh = doc.regenerate(text, merged)
    assert doc.regenerate(fresh, merged) == fresh
    named = {name for name, _ in doc.BLOCK.findall(text)}
    assert set(BY_ID) | set(doc.PARTS) == named
    # Outside of the markers nothing is generated.
    assert re.sub(doc.BLOCK, "", fresh) == re.sub(doc.BLOCK, "", text)


def test_experiments_become_one_result(disk, net):
    net["foreign"] = {"steal_percent": 9, "load": 0.1, "others_cores": 0}
    net["versions"] = {"iperf3": "3.12"}
    merged = suite.merge([disk, net])
    assert merged["kind"] == "paper" and len(merged["rows"]) == len(disk["rows"]) + len(net["rows"])
    assert merged["settings"]["disk"] == disk["settings"]["disk"] and merged["settings"]["net"] == net["settings"]
    assert merged["foreign"] == {"steal_percent": 9, "load": disk["foreign"]["load"], "others_cores": disk["foreign"]["others_cores"]}
    assert merged["versions"] == {**disk["versions"], "iperf3": "3.12"}


def test_no_time_is_no_run(bench, tmp_path):
    assert bench("paper", "--minutes", "0", "--out", tmp_path).returncode == 2


def test_under_emulation_the_modelled_disk_is_slowed(tmp_path):
    assert suite.disk_words(20, "kvm")[-1] == "1" and suite.disk_words(20, "tcg")[-1] == "3"
    assert suite.accelerator(tmp_path) == "tcg"
