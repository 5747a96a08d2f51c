# SPDX-License-Identifier: Apache-2.0
"""The C codecs as a Python object: golden_tool, one JSON line a question."""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("MALLEE_BUILD", "build"))

sys.path.insert(0, os.path.join(ROOT, "tools", "generate"))


class Refused(Exception):
    """The codec answered with an error."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error["code"], error["message"]))
        self.code = error["code"]
        self.message = error["message"]
        self.status = error["status"]


class Tool:
    def __init__(self, path=None):
        path = path or os.path.join(BUILD, "tests", "golden", "golden_tool")
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "golden_tool died at %r" % command
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        return self.process.wait(timeout=20)


def overlay(service):
    with open(os.path.join(ROOT, "api", "overlay", service + ".json"), encoding="utf-8") as f:
        return json.load(f)


def served_actions():
    """(service, action) of all that we serve."""
    with open(os.path.join(ROOT, "api", "actions.json"), encoding="utf-8") as f:
        served = json.load(f)
    return [(s, a) for s in sorted(served) for a in served[s]]
