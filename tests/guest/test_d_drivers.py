# SPDX-License-Identifier: Apache-2.0
"""The tests in C that need a real libvirtd and boot a guest of one sector: the driver, and the node controller on top of it. They
come while a cloud runs, beside which they must get along."""
import os
import subprocess

import pytest

from lib.cloud import BUILD


@pytest.mark.parametrize("program", ["src/hyper/hyper_kvm_guest_test", "src/svc/nc/svc_nc_nc_guest_test",
                                     "src/svc/nc/svc_nc_nc_volume_guest_test"])
def test_in_c(real_cloud, program):
    done = subprocess.run([BUILD / program], capture_output=True, text=True, timeout=400,
                          env={**os.environ, "MALLEE_GUEST_TESTS": "required"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
