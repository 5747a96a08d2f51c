# SPDX-License-Identifier: Apache-2.0
"""The mallee command, on the fake driver."""
import fcntl
import json
import os
import pty
import pwd
import select
import signal
import socket
import struct
import subprocess
import termios

import pytest

from lib.cloud import BUILD, Cloud, wait_for
from lib.instances import state, wait_state


@pytest.fixture
def own_cloud():
    """A cloud that the test may take down."""
    cloud = Cloud("fake")
    yield cloud
    cloud.destroy()


def fails(cloud, *args, code=1):
    done = cloud.run(*args, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


# ---- usage ----

def test_help_and_version(cloud):
    assert "MALLEE_PORT_BASE" in cloud.run("--help").stdout
    assert cloud.run("--version").stdout.startswith("mallee ")
    for command in ("up", "down", "status", "top", "doctor", "env", "account", "image", "api", "clean-state", "uninstall"):
        assert f"usage: mallee {command}" in cloud.run(command, "--help").stdout


@pytest.mark.parametrize("args", [(), ("nonsense",), ("up", "--nonsense"), ("top", "--interval", "0"), ("top", "--sort", "size"), ("account", "make", "x"), ("image", "import"),
                                  ("image", "import", "/dev/null"), ("down", "--timeout", "soon"), ("api", "ec3"),
                                  ("env", "--account")])
def test_wrong_usage(cloud, args):
    fails(cloud, *args, code=64)


@pytest.mark.parametrize("program", ["mallee-clc", "mallee-cc", "mallee-nc", "mallee-walrus"])
def test_daemons_explain_themselves(cloud, program):
    path = str(cloud.state / "bin" / program)
    run = lambda *args: subprocess.run([path, *args], env=cloud.env, capture_output=True, text=True, timeout=30)  # noqa: E731
    assert f"usage: {program}" in run("--help").stdout
    assert run("--version").stdout.startswith(program)
    assert run("--nonsense").returncode == 64
    again = run()
    assert again.returncode == 1 and "runs already" in again.stderr


# ---- looking ----

def test_top_lists_the_instance(cloud, ec2, image_id):
    (launched,) = ec2.run_instances(ImageId=image_id, InstanceType="t3.micro", MinCount=1, MaxCount=1)["Instances"]
    wait_state(ec2, launched["InstanceId"], "running")
    figures = wait_for("the instance's figures", lambda: next(
        (i for i in json.loads(cloud.run("top", "--once", "--json", "--interval", "0.2").stdout)["Instances"]
         if i["InstanceId"] == launched["InstanceId"]), None))
    (disk,) = figures["Disks"]
    assert disk["Kind"] == "file" and disk["Name"] == "root" and "fake" in disk["WhyEmpty"]
    assert figures["Vcpus"] == 2 and figures["HeldBackBy"] == []
    text = cloud.run("top", "--sort", "id").stdout
    assert launched["InstanceId"] in text and disk["WhyEmpty"] in text and "\033" not in text
    assert "mallee_nc_sampler_cpu_percent " in cloud.get(cloud.port("ops-nc"), "/metrics")[1]
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    wait_state(ec2, launched["InstanceId"], "terminated")
    wait_for("it to go from the screen", lambda: launched["InstanceId"] not in cloud.run("top", "--interval", "0.2").stdout)


class Screen:
    """mallee top on a terminal."""

    def __init__(self, cloud, *args):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 90, 0, 0))
        self.found = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen([str(BUILD / "mallee"), "top", *args], env=cloud.env, stdin=slave, stdout=slave, stderr=slave)
        self.text = ""

    def wait_for(self, what):
        def seen():
            while select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()
            return what in self.text
        wait_for(f"{what!r} on the screen", seen)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.mark.parametrize("end", ["q", "SIGINT", "SIGTERM"])
def test_top_leaves_the_terminal_as_it_was(cloud, end):
    screen = Screen(cloud, "--interval", "60")
    try:
        screen.wait_for("q quit")
        assert screen.text.startswith("\033[?1049h") and not termios.tcgetattr(screen.slave)[3] & termios.ICANON
        screen.text = ""
        screen.resize(10, 60)
        screen.wait_for("\033[10;1H")  # drawn anew at once, to the new size
        if end == "q":
            os.write(screen.master, b"q")
        else:
            screen.process.send_signal(getattr(signal, end))
        assert screen.process.wait(10) == 0
        screen.wait_for("\033[?1049l")
        assert termios.tcgetattr(screen.slave) == screen.found
    finally:
        screen.close()


def test_status_of_a_well_cloud(cloud):
    text = cloud.run("status").stdout
    for name in ("supervisor", "clc", "cc", "nc", "walrus"):
        assert any(line.startswith(name) and line.endswith("ok") for line in text.splitlines()), text
    assert "guests on" in text and "the fake hypervisor runs nothing" in text


def test_doctor_of_a_well_cloud(cloud):
    assert "All is well" in cloud.run("doctor").stdout


def test_api_lists_what_is_served(cloud):
    text = cloud.run("api").stdout
    assert "  RunInstances\n" in text and "  PutObject\n" in text and "  GetCallerIdentity\n" in text
    assert "PutObject" not in cloud.run("api", "ec2").stdout


# ---- clients ----

def test_env_is_for_eval(cloud):
    script = f'eval "$({BUILD}/mallee env)" && echo "$AWS_ACCESS_KEY_ID $AWS_ENDPOINT_URL_S3"'
    done = subprocess.run(["/bin/sh", "-ec", script], env=cloud.env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == [cloud.env["AWS_ACCESS_KEY_ID"], f"http://127.0.0.1:{cloud.port('s3')}"]


def test_aws_gets_endpoint_and_keys(cloud):
    assert '"Account"' in cloud.run("aws", "sts", "get-caller-identity").stdout
    assert cloud.run("aws", "--output", "text", "ec2", "describe-regions").stdout


@pytest.mark.parametrize("args", [("lambda", "list-functions"), ("--region", "us-east-1", "dynamodb", "list-tables")])
def test_aws_sends_nothing_to_amazon(cloud, args):
    assert "nothing is sent to Amazon" in fails(cloud, "aws", *args)


@pytest.mark.parametrize("args", [("--endpoint-url", "http://x", "ec2", "describe-regions"),
                                  ("--profile", "x", "ec2", "describe-regions")])
def test_aws_leads_nowhere_else(cloud, args):
    fails(cloud, "aws", *args, code=64)


def test_accounts(cloud):
    cloud.run("account", "create", "cli-test")
    assert "cli-test" in cloud.run("account", "list").stdout
    fails(cloud, "account", "create", "cli-test")
    fails(cloud, "account", "create", "Not A Name")
    mine = cloud.run("aws", "--account", "cli-test", "sts", "get-caller-identity", "--query", "Account").stdout
    assert mine != cloud.run("aws", "sts", "get-caller-identity", "--query", "Account").stdout
    assert fails(cloud, "env", "--account", "nobody")


# ---- images ----

def test_image_import_raw_and_qcow2(cloud, ec2, tmp_path):
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(os.urandom(1 << 20) + bytes(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)], check=True, capture_output=True)
    for file in (raw, qcow2):
        done = cloud.run("image", "import", str(file), "--name", f"cli {file.suffix}", "--description", "two MiB")
        image_id = done.stdout.split()[-1]
        (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
        assert (image["State"], image["Description"], image["Public"]) == ("available", "two MiB", False)


def test_image_import_public(cloud, client, tmp_path):
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(1 << 20))
    image_id = cloud.run("image", "import", str(file), "--name", "cli-public", "--public").stdout.split()[-1]
    other = client("ec2", account="cli-image-reader")
    assert other.describe_images(ImageIds=[image_id])["Images"][0]["Public"] is True


def test_image_import_refuses(cloud, tmp_path):
    file = tmp_path / "odd"
    file.write_bytes(b"not a disk")
    assert "512" in fails(cloud, "image", "import", str(file), "--name", "odd-size")
    file.write_bytes(b"")
    assert fails(cloud, "image", "import", str(file), "--name", "empty")
    assert str(tmp_path / "missing") in fails(cloud, "image", "import", str(tmp_path / "missing"), "--name", "missing")
    file.write_bytes(b"QFI\xfb" + bytes(1020))
    assert fails(cloud, "image", "import", str(file), "--name", "broken-qcow2")
    assert "tiny" in fails(cloud, "image", "build", "huge")


def test_image_import_takes_nothing_but_its_file(cloud, tmp_path):
    """qcow2 files can name others, of which an image from elsewhere would get the host's bytes."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for guests\n" + bytes((1 << 20) - 15))
    for name, options in (("backing", ("-b", str(secret), "-F", "raw")), ("data", ("-o", f"data_file={tmp_path}/data"))):
        file = tmp_path / f"{name}.qcow2"
        subprocess.run(["qemu-img", "create", "-f", "qcow2", *options, str(file), "1M"], check=True, capture_output=True)
        assert "another file" in fails(cloud, "image", "import", str(file), "--name", name)


# ---- up and down ----

def test_up_again_changes_nothing(cloud):
    before = {name: cloud.pid(name) for name in ("supervisor", "clc", "cc", "nc", "walrus")}
    cloud.run("up", "--no-instance")
    assert before == {name: cloud.pid(name) for name in before}


def test_a_dead_service_comes_back(cloud):
    for daemon in ("clc", "cc", "nc", "walrus"):
        pid = cloud.kill(daemon)
        cloud.wait_restarted(daemon, pid)
    cloud.wait_healthy()


def test_a_dead_supervisor_is_missed_and_replaced(cloud):
    services = {name: cloud.pid(name) for name in ("clc", "cc", "nc", "walrus")}
    cloud.kill("supervisor")
    done = cloud.run("status", check=False)
    assert done.returncode == 1 and "mallee up" in done.stdout
    cloud.run("up", "--no-instance")
    assert services == {name: cloud.pid(name) for name in services}
    pid = cloud.kill("cc")  # adopted ones are watched, too
    cloud.wait_restarted("cc", pid)
    cloud.wait_healthy()


def test_the_supervisor_executes_itself_anew(cloud):
    services = {name: cloud.pid(name) for name in ("clc", "cc", "nc", "walrus")}
    pid = cloud.kill("supervisor", signal.SIGHUP)
    wait_for("the supervisor to be there again", lambda: cloud.pid("supervisor") == pid)
    pid = cloud.kill("walrus")
    cloud.wait_restarted("walrus", pid)
    assert services["clc"] == cloud.pid("clc")
    cloud.wait_healthy()


def test_up_after_a_build_renews_what_is_old(cloud):
    before = {name: cloud.pid(name) for name in ("supervisor", "clc", "cc", "nc", "walrus")}
    for program in ("mallee", "mallee-cc"):
        os.utime(cloud.state / "bin" / program, (1, 1))  # not what is in the build folder
    cloud.run("up", "--no-instance")
    cloud.wait_healthy()
    after = {name: cloud.pid(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"cc"}
    exe = os.stat(f"/proc/{after['supervisor']}/exe")
    now = os.stat(cloud.state / "bin" / "mallee")
    assert (exe.st_dev, exe.st_ino) == (now.st_dev, now.st_ino)


def test_only_one_supervisor(cloud):
    assert "runs already" in fails(cloud, "supervise")


def test_down_and_up_keep_everything(own_cloud, tmp_path):
    from lib.aws import Clients
    own_cloud.up("--no-instance")
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(1 << 20))
    image_id = own_cloud.run("image", "import", str(file), "--name", "kept").stdout.split()[-1]
    ec2 = Clients(own_cloud)("ec2")
    launched = ec2.run_instances(ImageId=image_id, InstanceType="t2.nano", MinCount=1, MaxCount=1)["Instances"][0]
    wait_state(ec2, launched["InstanceId"], "running")
    assert "mallee up" in own_cloud.run("down").stdout
    assert own_cloud.run("down").stdout.startswith("Nothing runs")
    assert own_cloud.processes() == []
    own_cloud.run("up", "--no-instance")
    own_cloud.wait_healthy()
    assert state(ec2, launched["InstanceId"]) == "running"
    assert ec2.describe_images(ImageIds=[image_id])["Images"][0]["State"] == "available"


def test_clean_state_forgets(own_cloud):
    own_cloud.up("--no-instance")
    own_cloud.run("account", "create", "gone")
    assert "Nothing was changed" in fails(own_cloud, "clean-state")
    assert own_cloud.pid("clc")
    own_cloud.run("clean-state", "--yes")
    assert not own_cloud.pid("clc")
    own_cloud.run("up", "--no-instance")
    assert "gone" not in own_cloud.run("account", "list").stdout


def test_uninstall_removes_the_state(own_cloud):
    own_cloud.up("--no-instance")
    own_cloud.run("uninstall", "--yes")
    assert not own_cloud.state.exists() and own_cloud.processes() == []
    assert "Nothing to do" in own_cloud.run("uninstall", "--yes").stdout


def test_a_taken_port_names_its_holder(own_cloud):
    with socket.create_server(("127.0.0.1", own_cloud.port("s3"))):
        message = fails(own_cloud, "up", "--no-instance")
    assert f"Port {own_cloud.port('s3')} is taken by python3 (pid {os.getpid()})" in message
    assert not (own_cloud.state / "mallee.conf").exists()


def test_a_bad_setting_is_named(own_cloud):
    own_cloud.env["MALLEE_REGION"] = "Middle Earth"
    assert "MALLEE_REGION" in fails(own_cloud, "up")


def test_nothing_runs_yet(own_cloud):
    for command in ("status", "env"):
        assert "mallee up" in fails(own_cloud, command)
    assert "Nothing runs" in own_cloud.run("down").stdout
    assert "no cloud" in own_cloud.run("doctor", check=False).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root_nothing_is_changed(own_cloud):
    nobody = pwd.getpwnam("nobody")
    env = {**own_cloud.env, "MALLEE_HYPERVISOR": "auto", "MALLEE_STATE": str(own_cloud.state / "new")}
    program = own_cloud.state.with_name("mallee-copy")
    program.write_bytes((BUILD / "mallee").resolve().read_bytes())
    program.chmod(0o755)
    try:
        done = subprocess.run([str(program), "up"], env=env, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
                              capture_output=True, text=True, timeout=30)
    finally:
        program.unlink()
    assert done.returncode == 1 and "sudo MALLEE_STATE=" in done.stderr
    assert not (own_cloud.state / "new").exists()
