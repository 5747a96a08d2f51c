# SPDX-License-Identifier: Apache-2.0
"""The tour in README.md, run as it stands."""
import re
import subprocess

import pytest

from lib.cloud import BUILD, SOURCE

MADE_BY_FIXTURE = {"make up", "make down"}


def tour():
    text = (SOURCE / "README.md").read_text()
    section = text.split("## A five-minute tour")[1].split("\n## ")[0]
    return [block for block in re.findall(r"```sh\n(.*?)```", section, re.S) if block.strip() not in MADE_BY_FIXTURE]


@pytest.mark.timeout(900)
def test_tour(real_cloud, first, tmp_path):
    blocks = tour()
    assert len(blocks) >= 4
    script = "set -eu\n" + "\n".join(blocks).replace("build/mallee", str(BUILD / "mallee"))
    script = script.replace("/var/lib/mallee", str(real_cloud.state))
    env = {k: v for k, v in real_cloud.env.items() if not k.startswith("AWS_ACCESS") and not k.startswith("AWS_SECRET")}
    path = tmp_path / "tour.sh"
    path.write_text(script)
    done = subprocess.run(["/bin/sh", "-x", str(path)], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=800,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
