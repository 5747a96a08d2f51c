# SPDX-License-Identifier: Apache-2.0
"""KVM where it works, which only a guest that comes up in time can tell: there are hosts whose /dev/kvm opens and never boots one."""
import os

import guest as guest_dd
from servers import CannotMeasure

BOOT_S = 8


def choose(image, folder, wanted="auto"):
    """"kvm" or "tcg"."""
    if wanted == "tcg" or (wanted == "auto" and not os.access("/dev/kvm", os.R_OK | os.W_OK)):
        return "tcg"
    try:
        with guest_dd.Guest(image, folder / "kvm.log", [], disk="none", accel="kvm", boot_s=BOOT_S):
            return "kvm"
    except CannotMeasure as reason:
        if wanted == "kvm":
            raise CannotMeasure(f"KVM does not run guests here: {reason}") from None
        return "tcg"
