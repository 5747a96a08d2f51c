# SPDX-License-Identifier: Apache-2.0
"""Disks of a guest, without the rest of the cloud: the programs beside src/hyper that boot guests of their own. The cloud
brings libvirtd and what the guests' image takes."""
import os
import subprocess

import pytest

from lib.cloud import BUILD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def image(real_cloud, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "tiny.raw"
    real_cloud.run("image", "build", "tiny", "--output", path, timeout=600)
    return path


@pytest.mark.parametrize("program", ["hyper_kvm_disk_guest_test", "hyper_kvm_disk_fio_test"])
def test_disks(image, program):
    """Plugging and growing; then fio while its disks' servers are killed a hundred times."""
    env = {**os.environ, "MALLEE_TINY_IMAGE": str(image), "MALLEE_GUEST_TESTS": "required"}
    done = subprocess.run([BUILD / "src" / "hyper" / program], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=1400, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
