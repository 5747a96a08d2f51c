# SPDX-License-Identifier: Apache-2.0
"""What of a host a cloud could change: taken before, compared after."""
import json
import os
import re
import subprocess
from pathlib import Path

# Values that change by themselves.
VOLATILE = re.compile(r"conntrack_count|mc_forwarding|base_reachable|\.stat|random|tcp_fastopen_key|mld_|retrans")


def _run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _links():
    return {link["ifname"] for link in json.loads(_run("ip", "-j", "link"))}


def _addresses():
    found = set()
    for link in json.loads(_run("ip", "-j", "address")):
        for address in link.get("addr_info", []):
            found.add((link["ifname"], address["local"], address["prefixlen"]))
    return found


def _routes():
    routes = set()
    for family in ("-4", "-6"):
        for line in _run("ip", family, "route", "show", "table", "all").splitlines():
            routes.add(re.sub(r" (expires|pref|error) \S+", "", line).replace(" linkdown", "").strip())
    return routes


def _rules():
    """(table, line) of every table, without counts."""
    found = set()
    for table in _tables():
        text = _run("nft", "list", *table.split())
        found |= {(table, re.sub(r"packets \d+ bytes \d+", "", line).strip()) for line in text.splitlines()}
    return found


def _tables():
    return set(_run("nft", "list", "tables").splitlines())


def _sysctls():
    values = {}
    for folder in ("net", "kernel/yama"):
        for path in Path("/proc/sys", folder).rglob("*"):
            if path.is_file() and not VOLATILE.search(str(path)):
                try:
                    values[str(path)] = path.read_text().strip()
                except OSError:
                    pass
    return set(values.items())


def _users():
    return {line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()}


def _kvm():
    try:
        st = os.stat("/dev/kvm")
    except FileNotFoundError:
        return set()
    return {(st.st_mode, st.st_uid, st.st_gid)}


def _domains():
    if not os.path.exists("/usr/bin/virsh"):
        return set()
    done = subprocess.run(["virsh", "-c", "qemu:///system", "list", "--all", "--name"], capture_output=True, text=True)
    return set(done.stdout.split()) if done.returncode == 0 else set()


def snapshot():
    return {"links": _links(), "addresses": _addresses(), "routes": _routes(), "tables": _tables(), "rules": _rules(),
            "sysctls": _sysctls(), "users": _users(), "/dev/kvm": _kvm(), "domains": _domains()}


OURS = re.compile(r"\bml[bt][a-z0-9]|mallee[-_]")


def difference(before, after, cloud_id):
    """Lines that say what is otherwise. What carries another cloud's name is that cloud's, and comes and goes with it."""
    def foreign(item):
        return OURS.search(str(item)) and cloud_id not in str(item)
    found = []
    for kind, was in before.items():
        for item in sorted(map(str, was - after[kind])):
            if not foreign(item):
                found.append(f"{kind}: gone: {item}")
        for item in sorted(map(str, after[kind] - was)):
            if not foreign(item):
                found.append(f"{kind}: new: {item}")
    return found
