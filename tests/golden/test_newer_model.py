# SPDX-License-Identifier: Apache-2.0
"""
A build from the newest botocore that PyPI has: everything is generated, the handlers compile against
it, and the golden requests and replies hold between that botocore and codecs made from its own models.
"""

import json
import os
import subprocess
import sys

import pytest
import tool as golden

import generate  # noqa: E402  (tool.py put the generator's folder on the path)

HERE = os.path.dirname(os.path.abspath(__file__))


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
def build(newer, tmp_path_factory):
    """A build folder that generated from it."""
    folder = str(tmp_path_factory.mktemp("build"))
    done = run("meson", "setup", "-Dmodels=%s" % (newer / "botocore" / "data"), folder, golden.ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


@pytest.mark.slow
def test_handlers_compile(build):
    done = run("ninja", "-C", build, "src/svc/clc/libmallee_svc_clc.a", "src/svc/walrus/libmallee_svc_walrus.a")
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.slow
def test_golden_against_newer(newer, build):
    done = run("ninja", "-C", build, "tests/golden/golden_tool")
    assert done.returncode == 0, done.stdout[-6000:]
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               # Recorded bytes hold the members' order of the model that they were recorded with.
               "-k", "not test_exact",
               os.path.join(HERE, "test_requests.py"), os.path.join(HERE, "test_replies.py"),
               PYTHONPATH=str(newer), MALLEE_BUILD=build)
    assert done.returncode == 0, done.stdout[-6000:]


def served_members(service, model):
    """(structure, member) of all that an input takes, by the overlay over this model."""
    api = generate.load_api(service, model, os.path.join(golden.ROOT, "api", "overlay", service + ".json"),
                            os.path.join(golden.ROOT, "api", "actions.json"))
    return {(shape.name, m.name) for shape in api.reached() if shape.on_input for m in shape.members if m.served}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["ec2", "s3", "sts", "iam"])
def test_nothing_new_is_taken(newer, service, monkeypatch):
    """A structure served as "*" takes what a newer model adds to it, which no handler looks at."""
    monkeypatch.delenv("MALLEE_MODELS", raising=False)
    known = served_members(service, generate.model_path(service))
    monkeypatch.setenv("MALLEE_MODELS", str(newer / "botocore" / "data"))
    with open(os.path.join(golden.ROOT, "api", "overlay", service + ".json")) as f:
        renamed = set(json.load(f).get("some_models", []))
    new = served_members(service, generate.model_path(service)) - known
    assert {(structure, m) for structure, m in new if structure not in renamed} == set()
