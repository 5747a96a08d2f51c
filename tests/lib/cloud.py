# SPDX-License-Identifier: Apache-2.0
"""A cloud of its own for the tests: own state folder, id, ports and, with real guests, subnet."""
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from . import processes

SOURCE = Path(__file__).resolve().parents[2]
BUILD = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve()

# Ports as offsets from the port base (src/base/settings.h).
PORTS = {"api": 0, "s3": 1, "clc": 2, "cc": 3, "nc": 4, "walrus": 5, "metadata": 6, "sc": 7,
         "ops-clc": 10, "ops-cc": 11, "ops-nc": 12, "ops-walrus": 13, "ops-sc": 14}
PORT_SPAN = 20
DAEMONS = ("clc", "cc", "nc", "walrus", "sc")

# In a log: a report of a sanitizer, or the supervisor on a daemon that died of a fault of its own (not of a kill).
CRASH = re.compile(r"Sanitizer: |runtime error: |signal=(4|5|6|7|8|11|31)\b")

# What of the caller's environment reaches the programs: not the AWS settings, proxies and Python paths.
KEPT = ("LANG", "LC_ALL", "TERM", "TZ", "SUDO_USER", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wait_for(what, condition, timeout_s=30, step_s=0.1):
    """The first true value of condition(); fails with the name of what did not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for: {what}")
        time.sleep(step_s)


def ports_are_free(base):
    sockets = []
    try:
        for port in range(base, base + PORT_SPAN):
            s = socket.socket()
            sockets.append(s)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("0.0.0.0", port))
        return True
    except OSError:
        return False
    finally:
        for s in sockets:
            s.close()


def free_port_base():
    """Below the range out of which the kernel gives ports to clients."""
    for base in random.sample(range(10000, 32000, PORT_SPAN), 200):
        if ports_are_free(base):
            return base
    raise RuntimeError("no 20 free ports in a row between 10000 and 32000")


def test_root():
    """Where the states of a test run lie: in a place that other users can reach, since daemons and QEMU run as such."""
    given = os.environ.get("MALLEE_TEST_ROOT")
    if given:
        return Path(given)
    root = Path(tempfile.mkdtemp(prefix="mallee-test-", dir="/var/tmp"))
    root.chmod(0o755)
    return root


class CommandFailed(AssertionError):
    pass


class Cloud:
    """Attributes: state (Path), env (what every program of the cloud gets; once up, with the default account's AWS_*
    variables), port_base."""

    def __init__(self, hypervisor, root=None, **settings):
        self.root = root or test_root()
        self.state = Path(tempfile.mkdtemp(prefix=f"{hypervisor}-", dir=self.root))
        self.state.chmod(0o755)
        self.port_base = free_port_base()
        home = self.state.with_name(self.state.name + "-home")
        home.mkdir()
        self.env = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.env.update(PATH=PATH, HOME=str(home), MALLEE_STATE=str(self.state), MALLEE_HYPERVISOR=hypervisor,
                        MALLEE_PORT_BASE=str(self.port_base), AWS_EC2_METADATA_DISABLED="true",
                        AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
        self.env.update({name: str(value) for name, value in settings.items()})
        self.started = False
        self._accounts = {}

    # ---- running programs ----

    def run(self, *args, check=True, timeout=120, input=None):
        """build/mallee ARGS…; the finished process with stdout and stderr as text."""
        command = [str(BUILD / "mallee"), *map(str, args)]
        try:
            done = subprocess.run(command, env=self.env, timeout=timeout, input=input, text=True,
                                  stdin=subprocess.DEVNULL if input is None else None, capture_output=True)
        except subprocess.TimeoutExpired as e:
            raise CommandFailed(f"{shlex.join(command)} took longer than {timeout} s\n"
                                f"{(e.stdout or b'').decode()}{(e.stderr or b'').decode()}") from None
        if check and done.returncode != 0:
            raise CommandFailed(f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def up(self, *args, timeout=120):
        self.started = True  # also when it fails half-way: then there is something to take down
        done = self.run("up", *args, timeout=timeout)
        self.env.update(self.account_env())  # as after: eval "$(mallee env)"
        return done

    def down(self, timeout=120):
        return self.run("down", timeout=timeout)

    # ---- looking at it ----

    def port(self, name):
        return self.port_base + PORTS[name]

    def get(self, port, path, timeout=10):
        """(status, body) of a plain GET on loopback."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=timeout) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def healthy(self, daemon):
        try:
            return self.get(self.port("ops-" + daemon), "/healthz")[0] == 200
        except OSError:
            return False

    def wait_healthy(self, timeout_s=30):
        for daemon in DAEMONS:
            wait_for(f"{daemon} to be healthy", lambda d=daemon: self.healthy(d), timeout_s)

    def pid(self, name):
        """Of a daemon, or "supervisor"; 0 when it does not run, or when the pid is by now somebody else's."""
        try:
            pid = int((self.state / "run" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if processes.alive(pid) and processes.state_of(pid) == str(self.state) else 0

    def processes(self):
        return processes.below(self.state)

    def kill(self, daemon, signo=signal.SIGKILL):
        """Signal one of this cloud's own daemons; returns the pid it had."""
        pid = self.pid(daemon)
        assert pid, f"{daemon} does not run"
        os.kill(pid, signo)
        if signo == signal.SIGKILL:
            wait_for(f"{daemon} ({pid}) to be gone", lambda: not processes.alive(pid), 10, 0.01)
        return pid

    def wait_restarted(self, daemon, old_pid, timeout_s=30):
        def restarted():
            pid = self.pid(daemon)
            return pid and pid != old_pid and self.healthy(daemon) and pid
        return wait_for(f"{daemon} to be started again", restarted, timeout_s)

    def logs(self):
        """The daemons' logs and the guests' consoles."""
        return sorted((self.state / "log").glob("*.log")) + sorted((self.state / "nc").glob("instances/*/console.log"))

    def log_tails(self, lines=25):
        """{path below the state folder: last lines}"""
        tails = {}
        for path in self.logs():
            text = path.read_text(errors="replace").splitlines()
            tails[str(path.relative_to(self.state))] = "\n".join(text[-lines:])
        return tails

    def keep_logs(self, folder):
        """Copy them, since taking the cloud down removes the state."""
        for path in self.logs():
            copy = folder / path.relative_to(self.state)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)

    # ---- accounts ----

    def account_env(self, account="default"):
        """The variables that `mallee env` prints for an account, which is made if it is missing."""
        if account not in self._accounts:
            if account != "default":
                self.run("account", "create", account)
            args = [] if account == "default" else ["--account", account]
            self._accounts[account] = parse_exports(self.run("env", *args).stdout)
        return self._accounts[account]

    def endpoint(self, service, account="default"):
        env = self.account_env(account)
        return env[f"AWS_ENDPOINT_URL_{service.upper()}"]

    # ---- the end ----

    def crashes(self):
        """What the logs tell of daemons that crashed, and of what sanitizers found: a restart may have hidden it."""
        found = []
        for path in sorted(p for p in (self.state / "log").rglob("*") if p.is_file()):
            for line in path.read_text(errors="replace").splitlines():
                if CRASH.search(line):
                    found.append(f"{path.name}: {line}")
        return found

    def destroy(self):
        """Take everything away. Crashes, and what then still runs (it is ended too), are told as an error."""
        problems = []
        steps = [("down",), ("uninstall", "--yes")] if self.started else []
        for step in steps:
            try:
                self.run(*step, timeout=180)
            except CommandFailed as e:
                problems.append(str(e))
            problems += self.crashes() if step == ("down",) else []  # uninstall takes the logs away
        left = processes.sweep(self.state)
        if left:
            problems.append("left running: " + ", ".join(left))
        if problems:
            raise AssertionError("\n".join(problems))
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.env["HOME"], ignore_errors=True)
        self.leave_root()

    def leave_root(self):
        """Once the last that lies in a folder of this run's own is gone, the folder goes, too."""
        if "MALLEE_TEST_ROOT" not in os.environ and not any(self.root.iterdir()):
            self.root.rmdir()


def parse_exports(text):
    """export NAME='value' lines as a dict."""
    env = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "export":
            for word in words[1:]:
                name, equals, value = word.partition("=")
                if equals:
                    env[name] = value.rstrip(";")
    return env
