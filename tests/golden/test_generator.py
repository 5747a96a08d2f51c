# SPDX-License-Identifier: Apache-2.0
"""The generator itself: names, determinism, compressed models, and what it refuses."""

import gzip
import json
import os
import shutil
import subprocess
import sys

import pytest
import tool as golden

GENERATE = os.path.join(golden.ROOT, "tools", "generate", "generate.py")

import names  # noqa: E402  (tool.py put the generator's folder on the path)


@pytest.mark.parametrize("model,c", [
    ("RunInstancesRequest", "run_instances_request"), ("DiskGib", "disk_gib"), ("ETag", "e_tag"),
    ("VCpuInfo", "v_cpu_info"), ("ContentMD5", "content_md5"), ("ImageURLs", "image_ur_ls"),
    ("Public", "public"), ("Default", "default_"), ("GetConsoleOutput", "get_console_output"),
    ("EbsInfo", "ebs_info"), ("Ipv4Prefix", "ipv4_prefix"), ("ListObjectsV2Request", "list_objects_v2_request"),
])
def test_names(model, c):
    assert names.field(model) == c


def test_c_string():
    assert names.c_string(None) == "NULL"
    assert names.c_string('a"\\é\n1') == '"a\\"\\\\\\303\\251\\0121"'


def run(*args, **env):
    return subprocess.run([sys.executable, GENERATE, *args], env={**os.environ, **env},
                          capture_output=True, text=True)


def where(name):
    return run("where", name).stdout.strip()


def generate(out, name, model, overlay=None, **env):
    os.makedirs(out, exist_ok=True)
    return run("c", "--name", name, "--model", model, "--overlay",
               overlay or os.path.join(golden.ROOT, "api", "overlay", name + ".json"),
               "--actions", os.path.join(golden.ROOT, "api", "actions.json"), "--out", str(out), **env)


def contents(folder):
    return {n: (folder / n).read_text() for n in sorted(os.listdir(folder))}


@pytest.mark.parametrize("name", ["ec2", "s3", "sts", "iam"])
def test_deterministic_and_compressed(tmp_path, name):
    """The same text whatever Python's hash seed, and from a model that is gzipped as newer ones are."""
    model = where(name)
    assert generate(tmp_path / "a", name, model, PYTHONHASHSEED="1").returncode == 0
    if model.endswith(".gz"):
        with gzip.open(model, "rb") as f, open(tmp_path / "m.json", "wb") as g:
            shutil.copyfileobj(f, g)
        other = tmp_path / "m.json"
    else:
        with open(model, "rb") as f, gzip.open(tmp_path / "m.json.gz", "wb") as g:
            shutil.copyfileobj(f, g)
        other = tmp_path / "m.json.gz"
    assert generate(tmp_path / "b", name, str(other), PYTHONHASHSEED="2").returncode == 0
    assert len(contents(tmp_path / "a")) == 4
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def edited(tmp_path, name, edit):
    overlay = golden.overlay(name)
    edit(overlay)
    path = tmp_path / "overlay.json"
    path.write_text(json.dumps(overlay))
    return generate(tmp_path / "out", name, where(name), str(path))


@pytest.mark.parametrize("edit,words", [
    (lambda o: o["serves"].pop("StartInstancesRequest"), "no entry for the input structure StartInstancesRequest"),
    (lambda o: o["serves"]["StartInstancesRequest"].append("Frob"), "serves StartInstancesRequest.Frob"),
    (lambda o: o["serves"].update(Frob="*"), "serves Frob, which no served action reads"),
    (lambda o: o["serves"].update(StartInstancesRequest=[]), "is required and must be served"),
    (lambda o: o["rules"].update(BundleInstance=[]), "rules for BundleInstance, which is not served"),
    (lambda o: o["rules"].update(StartInstances=[{"kind": "id", "members": ["Frob"], "prefix": "i"}]),
     "no served member Frob"),
    (lambda o: o.update(roots={"Frob": "x"}), "roots of Frob"),
    (lambda o: o.update(members={"Frob": {}}), "no shape Frob"),
])
def test_refused(tmp_path, edit, words):
    done = edited(tmp_path, "ec2", edit)
    assert done.returncode != 0
    assert words in done.stderr


def test_missing_model():
    done = run("where", "ec2", MALLEE_MODELS="/nonexistent")
    assert done.returncode != 0 and "python3-botocore" in done.stderr
