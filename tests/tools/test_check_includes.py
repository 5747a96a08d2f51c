# SPDX-License-Identifier: Apache-2.0
"""tools/check-includes on small trees, one rule each."""
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check-includes"

GOOD = {
    "base/README.md": "# base\n\nMay use: nothing\n",
    "base/text.h": "",
    "base/text_priv.h": "",
    "base/text.c": '#include "base/text_priv.h"\n#include <stdio.h>\n',
    "wire/README.md": "# wire\n\nMay use: base\n",
    "wire/http.h": '#include "base/text.h"\n',
    "svc/clc/README.md": "# clc\n\nMay use: base, wire, gen.\n",
    "svc/clc/clc.h": "",
    "svc/clc/clc.c": '#include "gen/ec2.h"\n  #  include "wire/http.h"\n#include "svc/clc/clc.h"\n',
    "cmd/README.md": "# cmd\n\nMay use: base svc\n",
    "cmd/main.c": '#include "svc/clc/clc.h"\n',
}


def run(tmp_path, changes):
    for name, text in {**GOOD, **changes}.items():
        if text is None:
            continue
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run([TOOL, tmp_path / "src"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_good_tree_passes(tmp_path):
    code, out = run(tmp_path, {})
    assert (code, out) == (0, "7 files in 4 folders include what they may\n")


@pytest.mark.parametrize("changes, place, says", [
    ({"base/text.c": '\n#include "wire/http.h"\n'}, "base/text.c:2:", "base may not use wire"),
    ({"svc/clc/clc.c": '#include "../../wire/http.h"\n'}, "svc/clc/clc.c:1:", "without ../"),
    ({"wire/http.c": '#include "base/text_priv.h"\n'}, "wire/http.c:1:", "private to base"),
    ({"wire/http.c": '#include "http.h"\n'}, "wire/http.c:1:", '"wire/http.h"'),
    ({"wire/http.c": '#include "bsae/text.h"\n'}, "wire/http.c:1:", "no folder bsae"),
    ({"wire/http.c": "#include <base/text.h>\n"}, "wire/http.c:1:", "is ours"),
    ({"wire/http.c": '#include "gen/ec2.h"\n'}, "wire/http.c:1:", "may not use gen"),
    ({"net/net.c": ""}, "net/README.md:1:", "missing"),
    ({"net/net.c": "", "net/README.md": "# net\n"}, "net/README.md:1:", "no line"),
    ({"wire/README.md": "May use: base\nMay use: base\n"}, "wire/README.md:2:", "second"),
    ({"wire/README.md": "May use: base tsl\n"}, "wire/README.md:1:", "no folder tsl"),
    ({"svc/cc/README.md": "May use: base svc/clc\n", "svc/cc/cc.c": '#include "svc/clc/clc.h"\n'},
     "svc/cc/cc.c:1:", "send messages"),
])
def test_each_rule_is_told(tmp_path, changes, place, says):
    code, out = run(tmp_path, changes)
    assert code == 1
    assert any(place in line and says in line for line in out.splitlines()), out


def test_a_cycle_of_includes_is_told(tmp_path):
    code, out = run(tmp_path, {"base/README.md": "May use: wire\n", "base/text.c": '#include "wire/http.h"\n'})
    assert code == 1
    assert "cycle between folders" in out
    assert "base uses wire" in out and "wire uses base" in out


def test_a_cycle_that_is_only_allowed_is_told(tmp_path):
    code, out = run(tmp_path, {"base/README.md": "May use: wire\n"})
    assert code == 1
    assert "allow a cycle" in out


def test_an_empty_tree_does_not_pass(tmp_path):
    (tmp_path / "src").mkdir()
    done = subprocess.run([TOOL, tmp_path / "src"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no C files" in done.stdout
