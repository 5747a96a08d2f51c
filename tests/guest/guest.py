# SPDX-License-Identifier: Apache-2.0
"""A guest, as the tests see it."""
import json
import subprocess
from pathlib import Path

from lib.cloud import wait_for
from lib.instances import instance

BOOT_S = 300


class Guest:
    """A guest and a way in."""

    user = "root"

    def __init__(self, cloud, ec2, instance_id, key):
        self.cloud, self.ec2, self.id, self.key = cloud, ec2, instance_id, Path(key)

    @property
    def description(self):
        return instance(self.ec2, self.id)

    @property
    def address(self):
        return self.description["PrivateIpAddress"]

    def ssh(self, command, check=True, timeout=60, input=None):
        """The command's stdout, stripped; with check=False the finished process: 124, as of timeout(1), if it took too long."""
        words = ["/usr/bin/ssh", "-i", str(self.key), "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
                 "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                 "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3",
                 f"{self.user}@{self.address}", command]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, input=input,
                                  stdin=None if input else subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            if check:
                raise
            done = subprocess.CompletedProcess(words, 124, "", f"took longer than {timeout} s")
        if not check:
            return done
        assert done.returncode == 0, f"ssh {command!r}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def wait_ssh(self):
        wait_for(f"{self.id} to take SSH logins", lambda: self.ssh("true", check=False).returncode == 0, BOOT_S, 1)
        return self

    def boot_id(self):
        return self.ssh("cat /proc/sys/kernel/random/boot_id")

    def http(self, method, path, *headers):
        """(status, body) of a request to the metadata service, made by hand: busybox has no client that can PUT."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 169.254.169.254", "Content-Length: 0", "Connection: close", *headers, "", ""]
        script = ("f=/tmp/http.$$; mkfifo $f; exec 3<>$f; rm $f; cat >&3; "
                  "timeout 10 nc -w 5 169.254.169.254 80 <&3")
        reply = self.ssh(script, input="\r\n".join(lines), check=False).stdout
        head, _, body = reply.replace("\r\n", "\n").partition("\n\n")
        return (int(head.split()[1]) if head.startswith("HTTP/") else 0), body

    @property
    def tap(self):
        """Its tap on the host: the port of this cloud's bridge behind which its MAC address lives."""
        mac = self.description["NetworkInterfaces"][0]["MacAddress"]
        links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
        cloud_id = self.cloud_id
        taps = [link["ifname"] for link in links if link["ifname"].startswith(f"mlt{cloud_id}")]
        for tap in taps:
            rules = subprocess.run(["nft", "list", "table", "bridge", f"mallee_{cloud_id}"], capture_output=True, text=True,
                                   check=True).stdout
            if f'"{tap}" . {mac}' in rules:
                return tap
        raise AssertionError(f"no tap of {self.id} among {taps}")

    @property
    def cloud_id(self):
        conf = (self.cloud.state / "mallee.conf").read_text()
        (line,) = [line for line in conf.splitlines() if line.startswith("cloud_id =")]
        return line.partition("=")[2].strip()
