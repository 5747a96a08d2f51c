# SPDX-License-Identifier: Apache-2.0
"""Down and up again, and at last away: these come last, since they take the cloud from the others."""
from pathlib import Path

from host import difference, snapshot


def test_down_and_up_keep_the_disk(real_cloud, first):
    boot_id = first.boot_id()
    first.ssh("echo kept > /root/kept")  # no sync: the guest is shut down, not cut off
    address = first.address
    real_cloud.down()
    assert not real_cloud.pid("nc") and not real_cloud.pid("supervisor")
    real_cloud.up(timeout=400)
    first.wait_ssh()
    assert first.boot_id() != boot_id
    assert first.ssh("cat /root/kept") == "kept"
    assert first.address == address


def test_uninstall_gives_the_host_back(real_cloud, first, host_before):
    mine = first.cloud_id
    made = difference(host_before, snapshot(), mine)
    assert any(mine in line for line in made), "the comparison sees nothing of a running cloud"
    real_cloud.run("uninstall", "--yes", timeout=180)
    assert not real_cloud.state.exists()
    clouds = Path("/var/lib/mallee-host/clouds")
    assert not (clouds / mine).exists()
    left = difference(host_before, snapshot(), mine)
    if clouds.is_dir():  # another cloud is there: what they share stays
        left = [line for line in left if not line.startswith("users: new")]
    assert left == []
