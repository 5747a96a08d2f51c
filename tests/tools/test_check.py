# SPDX-License-Identifier: Apache-2.0
"""tools/check: that it counts right, above all what went wrong."""
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check"


@pytest.fixture(scope="module")
def check():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("mallee_check", str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mallee_check", loader))
    loader.exec_module(module)
    return module


CMOCKA_MIXED = """[==========] Running 4 test(s).
[ RUN      ] test_a
[       OK ] test_a
[ RUN      ] test_b
skipped: only root can
[  SKIPPED ] test_b
[ RUN      ] test_c
[  FAILED  ] test_c
[ RUN      ] test_d
[       OK ] test_d
[==========] 4 test(s) run.
[  PASSED  ] 2 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] test_b
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] test_c
"""


def unit(check, result="OK", stdout="", code=0):
    r = check.Result()
    check.add_unit(r, {"name": "x", "result": result, "stdout": stdout, "stderr": "", "returncode": code})
    return r


def test_cmocka_cases_are_counted(check):
    r = unit(check, "FAIL", CMOCKA_MIXED, 1)
    assert (r.passed, r.failed) == (2, 1)
    assert r.skips == ["x test_b: only root can"]
    assert r.failures == ["x test_c"]


def test_a_crash_is_a_failure(check):
    r = unit(check, "FAIL", "[==========] Running 4 test(s).\n[ RUN      ] test_a\n", -11)
    assert (r.passed, r.failed) == (0, 1)
    assert "-11" in r.failures[0]


def test_a_leak_after_all_passed_is_a_failure(check):
    r = unit(check, "FAIL", "[  PASSED  ] 3 test(s).\n", 23)
    assert (r.passed, r.failed) == (3, 1)


def test_a_hung_program_is_a_failure(check):
    assert unit(check, "TIMEOUT").failed == 1


def test_a_program_without_cmocka_counts_as_one(check):
    assert unit(check).passed == 1


def test_junit(check, tmp_path):
    (tmp_path / "j.xml").write_text("""<testsuites><testsuite>
        <testcase classname="m" name="a"/>
        <testcase classname="m" name="b"><failure message="assert 1 == 2&#10;more"/></testcase>
        <testcase classname="m" name="c"><error message="no cloud"/></testcase>
        <testcase classname="m" name="d"><skipped message="needs root"/></testcase>
        </testsuite></testsuites>""")
    r = check.Result()
    assert check.add_junit(r, tmp_path / "j.xml", "api") == 4
    assert (r.passed, r.failed) == (1, 2)
    assert r.failures == ["m::b: assert 1 == 2", "m::c: no cloud"]
    assert r.skips == ["m::d: needs root"]


def test_a_hung_command_is_killed(check, tmp_path):
    code, _ = check.run(["sh", "-c", "sleep 60"], 0.5, quiet=True)
    assert code is None


def test_the_last_line_is_the_counts():
    done = subprocess.run([TOOL, "includes"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "MALLEE_BUILD": os.environ.get("MALLEE_BUILD", "build")})
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
    assert found
    assert done.returncode == (1 if int(found.group(2)) else 0)


def test_unknown_suites_are_refused():
    done = subprocess.run([TOOL, "nonsense"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "nonsense" in done.stderr
