# SPDX-License-Identifier: Apache-2.0
"""A stock Debian with cloud-init, which nobody told where it is: it finds the EC2 data source by itself and is configured by it.

Under emulation it takes minutes to boot; what its console says meanwhile is shown."""
import json
import subprocess
import time
from pathlib import Path

import pytest

from guest import Guest
from lib.cloud import SOURCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

BUILD_S = 1500
BOOT_S = 1200  # under emulation, on a busy host

USER_DATA = """#cloud-config
write_files:
- path: /etc/mallee-test
  content: written by user data
runcmd:
- [sh, -c, 'echo run >> /root/user-data-runs; hostname > /root/user-data-host']
"""


class Debian(Guest):
    user = "debian"

    def ssh(self, command, check=True, timeout=180, input=None):  # Python takes its time to start there
        return super().ssh(command, check, timeout, input)

    def console(self):
        return (self.cloud.state / "nc" / "instances" / self.id / "console.log").read_text(errors="replace")

    def wait_configured(self, say):
        """Until cloud-init has done its last stage, or says that it is off or broken."""
        start, said = time.monotonic(), 0
        while time.monotonic() - start < BOOT_S:
            if time.monotonic() - said > 20:
                said = time.monotonic()
                lines = self.console().strip().splitlines() or ["(nothing on its console yet)"]
                say(f"{said - start:4.0f} s: {lines[-1].strip()[:120]}")
            if self.ssh("cat /run/cloud-init/result.json", check=False).returncode == 0:
                say(f"configured after {time.monotonic() - start:.0f} s")
                return self
            time.sleep(2)
        tail = "\n".join(self.console().splitlines()[-60:])
        raise AssertionError(f"not configured after {BOOT_S} s; the end of its console:\n{tail}")

    def cloud_init(self, key):
        return self.ssh(f"cloud-init query {key}")


@pytest.fixture(scope="module")
def say(request):
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def shown(text):
        with capture.global_and_fixture_disabled():
            print(f"\n  debian: {text}", end="", flush=True)
    return shown


@pytest.fixture(scope="module")
def debian_image(real_cloud, say):
    say("building the image, unless it is in the cache")
    done = subprocess.run([SOURCE / "image/debian/build"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_S)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.strip().splitlines()[-1]
    say(line)
    path = Path(line.removeprefix("image debian: ").rpartition(", ")[0])
    return real_cloud.run("image", "import", path, "--name", "debian-12", timeout=BUILD_S).stdout.split()[-1]


@pytest.fixture(scope="module")
def debian(real_cloud, real_ec2, debian_image, say):
    key = real_cloud.state.with_name(real_cloud.state.name + "-debian-key")
    key.touch(0o600)
    key.write_text(real_ec2.create_key_pair(KeyName="debian-test", KeyType="ed25519")["KeyMaterial"])
    (launched,) = real_ec2.run_instances(
        ImageId=debian_image, InstanceType="t3.small", MinCount=1, MaxCount=1, KeyName="debian-test", UserData=USER_DATA,
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}],
        MetadataOptions={"HttpTokens": "required"})["Instances"]
    real_ec2.get_waiter("instance_running").wait(InstanceIds=[launched["InstanceId"]],
                                                 WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    yield Debian(real_cloud, real_ec2, launched["InstanceId"], key).wait_configured(say)
    real_ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    key.unlink()


def test_no_errors(debian):
    done = debian.ssh("cloud-init status --wait --long", check=False, timeout=300)
    assert done.returncode == 0 and "status: done" in done.stdout, done.stdout + done.stderr
    result = json.loads(debian.ssh("cat /run/cloud-init/result.json"))["v1"]
    assert result["errors"] == []
    assert result["datasource"].startswith("DataSourceEc2")
    assert debian.ssh("systemctl list-units --failed --plain --no-legend") == ""
    warnings = debian.ssh("sudo grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true")
    assert warnings == ""


def test_source_is_found_by_dmi(debian):
    """The image allows every data source; what is left is what ds-identify found."""
    allowed = debian.ssh("cat /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg | grep datasource_list: || true")
    assert allowed == "" or all(name in allowed for name in ("NoCloud", "OpenStack", "GCE", "Ec2"))
    assert debian.ssh("grep datasource_list: /run/cloud-init/cloud.cfg") == "datasource_list: [ Ec2, None ]"
    assert debian.ssh("sudo cat /sys/class/dmi/id/product_uuid").lower().startswith("ec2")
    assert debian.ssh("cloud-id") == "aws"


def test_instance_data(debian):
    described = debian.description
    assert debian.cloud_init("v1.instance_id") == debian.id
    assert debian.cloud_init("v1.platform") == "ec2"
    assert debian.cloud_init("v1.availability_zone") == described["Placement"]["AvailabilityZone"]
    assert debian.cloud_init("v1.region") == debian.ec2.meta.region_name
    metadata = json.loads(debian.ssh("sudo cloud-init query ds.meta_data"))
    assert metadata["ami-id"] == described["ImageId"]
    assert metadata["instance-type"] == "t3.small"
    assert metadata["local-ipv4"] == debian.address
    (interface,) = metadata["network"]["interfaces"]["macs"].values()
    assert interface["local-ipv4s"] == debian.address
    document = json.loads(debian.ssh("sudo cloud-init query ds.dynamic"))["instance-identity"]["document"]
    assert document["instanceId"] == debian.id and document["region"] == debian.ec2.meta.region_name


def test_host_name(debian):
    assert debian.ssh("hostname") == debian.description["PrivateDnsName"].partition(".")[0]
    assert debian.ssh("hostname -f") == debian.description["PrivateDnsName"]


def test_key_pair(debian):
    public = subprocess.run(["/usr/bin/ssh-keygen", "-y", "-f", str(debian.key)], capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == debian.ssh("cat ~/.ssh/authorized_keys").split()[:2]
    assert debian.ssh("sudo id -u") == "0"
    root = Guest(debian.cloud, debian.ec2, debian.id, debian.key)
    assert "Please login as the user" in root.ssh("true", check=False).stdout


def test_user_data(debian):
    assert debian.ssh("cat /etc/mallee-test") == "written by user data"
    assert debian.ssh("sudo cat /root/user-data-runs") == "run"
    assert debian.ssh("sudo cat /root/user-data-host") == debian.ssh("hostname")


def test_root_grew(debian):
    sectors = int(debian.ssh("cat /sys/block/vda/size"))
    kib = int(debian.ssh("df -k --output=size / | tail -n 1"))
    assert sectors * 512 == 8 << 30
    assert kib * 2 > sectors * 0.9


def test_identity_is_its_own(debian):
    """Made at the first boot, and shown on the console, so that the first login can be checked."""
    fingerprint = debian.ssh("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert fingerprint in debian.console()
    assert len(debian.ssh("cat /etc/machine-id")) == 32


def test_reboot(debian, real_ec2):
    """A boot later it is still configured, and nothing is done twice."""
    boot_id, host_key = debian.boot_id(), debian.ssh("cat /etc/ssh/ssh_host_ed25519_key.pub")
    real_ec2.reboot_instances(InstanceIds=[debian.id])

    def rebooted():
        done = debian.ssh("test -s /run/cloud-init/result.json && cat /proc/sys/kernel/random/boot_id", check=False)
        return done.returncode == 0 and done.stdout.strip() != boot_id
    wait_for("it to come back with another boot id", rebooted, BOOT_S, 2)
    assert json.loads(debian.ssh("cat /run/cloud-init/result.json"))["v1"]["errors"] == []
    assert debian.ssh("sudo cat /root/user-data-runs") == "run"
    assert debian.ssh("cat /etc/ssh/ssh_host_ed25519_key.pub") == host_key
