# SPDX-License-Identifier: Apache-2.0
"""
Requests captured from boto3 (captured-VERSION.json, made by capture.py) are read as the values beside
them. One file is the installed boto3's, the other a much newer one's, which sends more checksums.
"""

import glob
import json
import os

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = sorted(glob.glob(os.path.join(HERE, "captured-*.json")))


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def cases():
    for path in FILES:
        for i, case in enumerate(load(path)):
            yield pytest.param(case, id="%s-%d-%s" % (os.path.basename(path)[9:-5], i, case["call"]))


def test_both_files_are_there():
    assert len(FILES) == 2


@pytest.mark.parametrize("case", cases())
def test_captured(tool, case):
    answer = tool.ask(**case["request"])
    assert answer["action"].lower() == case["call"].replace("_", "")
    assert answer["value"] == case["value"]


def test_capture_is_current():
    """The installed boto3 still sends what was captured, when it is the captured version."""
    import botocore
    import capture

    path = os.path.join(HERE, "captured-%s.json" % ".".join(botocore.__version__.split(".")[:2]))
    if not os.path.exists(path):
        pytest.skip("no capture of botocore %s" % botocore.__version__)
    for case, call in zip(load(path), capture.CALLS):
        assert case["request"] == capture.capture(*call)
