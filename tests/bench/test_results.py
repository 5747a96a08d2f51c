# SPDX-License-Identifier: Apache-2.0
"""Results: which files are ones, where they are kept, how they are found again; the entry of `mallee bench`."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import installed
from paper import store
from paper.result import BadResult, check, parse, read, spread_of

SOURCE = Path(installed.__file__).resolve().parent.parent


@pytest.mark.parametrize("text, what", [
    ("", "not JSON"),
    ("{", "not JSON"),
    ("[]", "not an object"),
    ("null", "not an object"),
    ("{}", "version"),
    ('{"version": true, "kind": "disk", "rows": []}', "version"),
    ('{"version": 2, "kind": "disk", "rows": []}', "version"),
    ('{"version": 1, "kind": "tape", "rows": []}', "kind"),
    ('{"version": 1, "kind": "disk"}', "rows is missing"),
    ('{"version": 1, "kind": "disk", "rows": {}}', "rows is not a list"),
    ('{"version": 1, "kind": "disk", "rows": [1]}', "row 1 is not an object"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none"}]}', "workload is missing"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "mb_s": "fast"}]}', "mb_s is not a number"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "mb_s": true}]}', "mb_s is not a number"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "mb_s": NaN}]}', "no number"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "mb_s": 1e999}]}', "no number"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "mb_s": 1%s}]}' % ("0" * 5000), "no number"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "held_back_by": [{}]}]}', "rule is missing"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "model": {"mb_s": "x"}}]}', "model: mb_s"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "none", "workload": "dd-read", "runs": [7]}]}', "a run is not an object"),
    ('{"version": 1, "kind": "disk", "rows": [{"configuration": "a", "workload": "b"}, {"configuration": "a", "workload": "b"}]}', "there twice"),
    ("[" * 100000, "not JSON"),
])
def test_what_is_no_result_is_refused_with_a_reason(text, what):
    with pytest.raises(BadResult, match=what):
        parse(text)


def test_recorded_results_are_results(disk, net):
    assert check(disk) is disk and check(net) is net


def test_a_file_that_cannot_be_read(tmp_path):
    for name, content in (("absent", None), ("binary", b"\xff\xfe")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadResult, match=name):
            read(tmp_path / name)
    with pytest.raises(BadResult, match="directory"):
        read(tmp_path)


def test_the_spread_is_that_of_the_runs():
    row = {"configuration": "none", "workload": "dd-read", "mb_s": 100, "spread_percent": 1.0}
    assert spread_of(row) == 1.0
    assert spread_of({**row, "runs": [{"mb_s": 90}, {"mb_s": 100}, {"mb_s": 104}]}) == pytest.approx(14)
    assert spread_of({**row, "runs": [{"mb_s": 100}]}) is None


# ---- kept ----

@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "bench"


def test_a_result_is_kept_under_its_kind_and_time(kept, disk):
    disk["date"] = "2026-11-30T06:53:29Z"
    path = store.keep(disk)
    assert path.parent == kept and path.name == "disk-20261130T065329.json"
    assert store.keep(disk).name == "disk-20261130T065329-2.json"
    assert store.load(path.stem) == store.load(path.name) == store.load(str(path)) == disk
    assert store.load("last") == disk


def test_a_name_cannot_lead_elsewhere(kept, disk):
    store.keep(disk)
    for name in ("../bench/disk-20261130T065329", "no-such", "", ".hidden"):
        with pytest.raises(BadResult):
            store.load(name)


def test_the_date_cannot_lead_elsewhere(kept, disk):
    disk["date"] = "../../../etc/x"
    assert store.keep(disk).parent == kept


def test_without_a_cloud_the_sources_folder_keeps_them(monkeypatch, tmp_path):
    monkeypatch.delenv("MALLEE_STATE", raising=False)
    monkeypatch.setattr(store, "CLOUD", tmp_path / "none")
    monkeypatch.delenv("MALLEE_BUILD", raising=False)
    assert store.folder() == store.SOURCE / "build" / "bench" / "results"
    monkeypatch.setattr(store, "SOURCE", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert store.folder() == tmp_path / "xdg" / "mallee" / "bench"


def test_kept_results_are_listed(bench, kept, disk, net):
    assert "No result is kept" in bench("report").stdout and "No result is kept" in bench("compare").stdout
    names = [store.keep(disk).stem, store.keep(net).stem]
    (kept / "broken.json").write_text("{")
    for command in ("report", "compare"):
        done = bench(command)
        assert done.returncode == 0 and all(name in done.stdout for name in names) and "broken  unreadable" in done.stdout
    assert bench("report", names[1]).returncode == 0


# ---- the entry ----

def test_usage(bench):
    assert bench().returncode == 2 and "usage: mallee bench" in bench().stderr
    done = bench("--help")
    assert done.returncode == 0 and all(name in done.stdout for name in ("disk", "net", "block", "report", "compare", "paper"))
    done = bench("tape")
    assert done.returncode == 2 and "no command 'tape'" in done.stderr
    assert bench("report", "--html").returncode == 2


def test_bad_files_are_told_and_are_no_traceback(bench, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"version": 1, "kind": "disk", "rows": [{}]}))
    for argv in (("report", tmp_path / "bad.json"), ("report", tmp_path / "absent"), ("paper-doc", tmp_path / "bad.json")):
        done = bench(*argv)
        assert done.returncode == 2 and done.stderr.startswith("mallee bench") and "Traceback" not in done.stderr


def test_where_it_is_installed_a_build_folder_is_made_of_links(tmp_path, monkeypatch):
    prefix = tmp_path / "usr"
    shutil.copytree(SOURCE / "bench", prefix / "share" / "mallee" / "bench", ignore=shutil.ignore_patterns("*.c", "__pycache__"))
    for program in ("bin/mallee", "bin/mallee-blockd", "libexec/mallee/bench/stream"):
        (prefix / program).parent.mkdir(parents=True, exist_ok=True)
        (prefix / program).write_text("#!/bin/sh\n")
    monkeypatch.setenv("MALLEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MALLEE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MALLEE_BUILD", raising=False)
    entry = prefix / "share" / "mallee" / "bench" / "mallee_bench.py"
    for _ in range(2):
        done = subprocess.run([sys.executable, str(entry), "report"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "cache" / "bench-build"
    for name, program in (("mallee", "bin/mallee"), ("src/cmd/mallee-blockd", "bin/mallee-blockd"), ("bench/stream", "libexec/mallee/bench/stream")):
        assert (folder / name).resolve() == prefix / program


def test_in_the_source_no_such_folder_is_made(monkeypatch):
    monkeypatch.delenv("MALLEE_BUILD", raising=False)
    installed.settle(SOURCE / "bench")
    assert "MALLEE_BUILD" not in os.environ
