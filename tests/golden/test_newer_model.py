# SPDX-License-Identifier: Apache-2.0
"""
The generator over the newest botocore that PyPI has: everything is generated and compiled, and the
golden requests and replies hold between that botocore and codecs built from its own models.
"""

import glob
import json
import os
import subprocess
import sys

import pytest
import tool as golden

HERE = os.path.dirname(os.path.abspath(__file__))
SERVICES = ["ec2", "s3", "sts", "iam"]


def run(*command, **env):
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """A folder with the newest botocore and what it needs."""
    folder = tmp_path_factory.mktemp("botocore")
    done = run(sys.executable, "-m", "pip", "install", "-q", "--no-input", "--target", str(folder), "botocore")
    if not (folder / "botocore").is_dir():
        pytest.skip("no newer botocore: pip could not fetch one (%s)"
                    % (done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return folder


@pytest.fixture(scope="module")
def generated(newer, tmp_path_factory):
    out = tmp_path_factory.mktemp("gen") / "gen"
    out.mkdir()
    generate = os.path.join(golden.ROOT, "tools", "generate", "generate.py")
    models = {"MALLEE_MODELS": str(newer / "botocore" / "data")}
    for name in SERVICES:
        where = run(sys.executable, generate, "where", name, **models)
        assert where.returncode == 0, where.stderr
        done = run(sys.executable, generate, "c", "--name", name, "--model", where.stdout.strip(),
                   "--overlay", os.path.join(golden.ROOT, "api", "overlay", name + ".json"),
                   "--actions", os.path.join(golden.ROOT, "api", "actions.json"), "--out", str(out))
        assert done.returncode == 0, done.stderr
    return out


def flags(*what):
    return run("pkg-config", *what, "jansson", "libxml-2.0", "gnutls", "libmicrohttpd", "libcurl",
               "libcap-ng").stdout.split()


def sanitizers():
    """What the archives were built with has to be linked with."""
    with open(os.path.join(golden.BUILD, "meson-info", "intro-buildoptions.json"), encoding="utf-8") as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return [] if options["b_sanitize"] == "none" else ["-fsanitize=" + options["b_sanitize"]]


@pytest.fixture(scope="module")
def newer_tool(generated, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("tool") / "golden_tool")
    archives = [os.path.join(golden.BUILD, "src", n, "libmallee_%s.a" % n)
                for n in ("wire", "tls", "os", "base")]
    done = run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Werror", "-fno-strict-aliasing", *sanitizers(),
               "-I", os.path.join(golden.ROOT, "src"), "-I", str(generated.parent), *flags("--cflags"),
               os.path.join(HERE, "golden_tool.c"), *sorted(glob.glob(str(generated / "*.c"))),
               "-Wl,--start-group", *archives, "-Wl,--end-group", *flags("--libs"), "-lpthread", "-lm",
               "-o", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_handler_headers_compile(generated, name, tmp_path):
    source = tmp_path / "x.c"
    source.write_text('#include "gen/%s_dispatch.h"\nint main(void) { return %s_dispatch[0].action == 0; }\n'
                      % (name, name))
    done = run("cc", "-std=gnu17", "-fsyntax-only", "-Wall", "-Werror", "-I",
               os.path.join(golden.ROOT, "src"), "-I", str(generated.parent), str(source))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_golden_against_newer(newer, newer_tool):
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               os.path.join(HERE, "test_requests.py"), os.path.join(HERE, "test_replies.py"),
               PYTHONPATH=str(newer), MALLEE_GOLDEN_TOOL=newer_tool)
    assert done.returncode == 0, done.stdout[-6000:]
