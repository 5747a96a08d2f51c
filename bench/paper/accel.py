# SPDX-License-Identifier: Apache-2.0
"""What guests run on: KVM where it works, as the node controller's own probe finds. There are hosts whose /dev/kvm opens and never
boots a guest."""
import subprocess

from paper.hostnet import program
from servers import CannotMeasure


def choose(wanted="auto"):
    """"kvm" or "tcg"."""
    if wanted == "tcg":
        return wanted
    said = subprocess.run([program("accel-probe")], capture_output=True, text=True, check=False).stdout
    found, _, why = said.partition("\n")
    if wanted == "kvm" and found != "kvm":
        raise CannotMeasure(f"KVM does not run guests here: {why.strip()}")
    if found not in ("kvm", "tcg"):
        raise CannotMeasure(f"no guest runs here: {why.strip()}")
    return found
