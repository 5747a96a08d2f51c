# SPDX-License-Identifier: Apache-2.0
"""`mallee bench compare`: what counts as a difference, what is said first, and the exit codes."""
import copy

import pytest

from paper.compare import judge, lines_of


def row(value, spread=4.0, runs=3, name="mb_s"):
    some = [{name: value * (1 + spread / 100 * (i / (runs - 1) - 0.5))} for i in range(runs)] if runs > 1 else [{name: value}]
    return {"configuration": "mallee", "workload": "dd-write", name: value, "runs": some, "spread_percent": spread}


@pytest.mark.parametrize("a, b, verdict", [
    (row(100), row(100), "same"),
    (row(100), row(97), "same"),
    (row(100), row(95), "worse"),
    (row(100), row(105), "better"),
    (row(100, 20), row(85, 2), "same"),        # the first's own runs differ by more
    (row(100, 2), row(85, 20), "same"),        # the second's do
    (row(100, 2), row(75, 20), "worse"),
    (row(100, runs=1), row(92, runs=1), "same"),   # a single run: ten percent
    (row(100, runs=1), row(88, runs=1), "worse"),
    (row(0, 0), row(0, 0), "same"),
])
def test_a_difference_counts_when_it_exceeds_both_spreads(a, b, verdict):
    assert judge(a, b)[2] == verdict


def text_of(first, second):
    lines, worse = lines_of(first, second, ("a", "b"))
    return "\n".join(lines), worse


def slower(result, factor, configuration="mallee", workload="dd-write"):
    result = copy.deepcopy(result)
    for r in result["rows"]:
        if (r["configuration"], r["workload"]) == (configuration, workload):
            r["mb_s"] *= factor
            for run in r["runs"]:
                run["mb_s"] *= factor
    return result


def test_both_medians_and_their_ratio(disk):
    text, worse = text_of(disk, slower(disk, 0.5))
    line = next(line for line in text.splitlines() if "Mallee" in line)
    assert line.split()[-5:-2] == ["36.5", "18.2", "0.50"] and line.endswith("WORSE")
    assert worse == 1 and "1 worse, 0 better" in text


def test_it_is_said_first_that_they_were_not_measured_alike(disk):
    other = copy.deepcopy(disk)
    other["host"].update(kernel="6.1.0", cores=8)
    other["settings"]["scale"] = 1.0
    other["versions"]["qemu"] = "9.0"
    text, _ = text_of(disk, other)
    for words in ("Linux 6.1.0", "settings, scale: 0.333 | 1", "versions, qemu: 7.2.22 | 9.0"):
        assert words in text and text.index(words) < text.index("dd, writing")
    assert "not measured alike" not in text_of(disk, disk)[0]


def test_rows_that_only_one_has_are_named(disk):
    other = copy.deepcopy(disk)
    for r in other["rows"]:
        if r["configuration"] == "disk-nvme":
            r.update(why_empty="no NVMe", mb_s=None, runs=[])
    other["rows"] = [r for r in other["rows"] if r["workload"] != "rand-read"]
    text, worse = text_of(disk, other)
    assert "dd, writing, TCG local disk NVMe: no NVMe" in text and "no such row" in text and worse == 0
    assert "Only in B:" in text_of(other, disk)[0]


def test_exit_codes(bench, saved, disk, net, tmp_path):
    same, worse = saved(disk, "a.json"), saved(slower(disk, 0.5), "b.json")
    assert bench("compare", same, same).returncode == 0
    done = bench("compare", same, worse)
    assert done.returncode == 1 and "WORSE" in done.stdout
    assert bench("compare", worse, same).returncode == 0
    (tmp_path / "bad.json").write_text("{")
    for argv in ((same,), (same, worse, same), (same, tmp_path / "bad.json"), (same, tmp_path / "absent"), (same, saved(net, "net.json"))):
        done = bench("compare", *argv)
        assert done.returncode == 2 and done.stderr.startswith("mallee bench compare: ") and "Traceback" not in done.stderr
    assert bench("compare", "--no-such-option").returncode == 2


def test_a_networks_rows_are_told_apart_by_whom_they_were_measured_to(net):
    other = copy.deepcopy(net)
    for r in other["rows"]:
        if (r["configuration"], r["workload"], r["target"]) == ("mallee", "tcp-to-guest", "peer"):
            r["mbit_s"] /= 2
            for run in r["runs"]:
                run["mbit_s"] /= 2
    text, worse = text_of(net, other)
    assert worse == 1 and "to peer" in next(line for line in text.splitlines() if "WORSE" in line)
