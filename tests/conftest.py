# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all Python tests: `cloud` (fake driver) and `real_cloud` (real guests), boto3 clients, time limits.

MALLEE_BUILD names the build folder (default: build). A failed test shows the last lines of the daemons' logs.
"""
import os
import shutil
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lib import aws, cloud as clouds  # noqa: E402

TIMEOUT_S = 120
GUEST_TIMEOUT_S = 600

_running = []  # clouds of this session, whose logs a failed test shows


# ---- a time limit for each phase of each test ----

def _limit_of(item):
    marker = item.get_closest_marker("timeout")
    if marker:
        return marker.args[0]
    return GUEST_TIMEOUT_S if "real_cloud" in item.fixturenames else TIMEOUT_S


def _limited(item, seconds):
    def on_alarm(signo, frame):
        pytest.fail(f"took longer than {seconds} s", pytrace=True)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    # The first test that needs a cloud also starts it: `mallee up` has limits of its own.
    yield from _limited(item, _limit_of(item) + 900)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    yield from _limited(item, _limit_of(item))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    yield from _limited(item, _limit_of(item) + 300)


# ---- logs of a failed test ----

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for cloud in _running:
            for name, tail in cloud.log_tails().items():
                report.sections.append((f"{cloud.state}/{name}", tail))


# ---- clouds ----

def _stop(cloud, failed):
    _running.remove(cloud)
    kept = cloud.state.with_name(cloud.state.name + "-log")
    cloud.keep_logs(kept)
    try:
        cloud.destroy()
    except AssertionError:
        failed = True
        raise
    finally:
        if failed:
            print(f"\nlogs kept in {kept}")
        else:
            shutil.rmtree(kept, ignore_errors=True)
            if cloud.root.exists():
                cloud.leave_root()


def _session_cloud(request, hypervisor, *up_args, up_timeout, **settings):
    cloud = clouds.Cloud(hypervisor, **settings)
    _running.append(cloud)
    before = request.session.testsfailed
    try:
        cloud.up(*up_args, timeout=up_timeout)
        yield cloud
    finally:
        _stop(cloud, request.session.testsfailed > before or sys.exc_info()[0] is not None)


@pytest.fixture(scope="session")
def cloud(request):
    """A cloud on the fake driver, without image and instance. Needs no root."""
    yield from _session_cloud(request, "fake", "--no-instance", up_timeout=60)


@pytest.fixture(scope="session")
def real_cloud(request):
    """A cloud with real guests and its first instance, as `mallee up` leaves it. Needs root."""
    if os.geteuid() != 0:
        pytest.skip("real guests need root")
    yield from _session_cloud(request, "auto", up_timeout=900)


# ---- clients of the cloud on the fake driver ----

@pytest.fixture(scope="session")
def client(cloud):
    """client("ec2", account="name", **boto3_arguments)"""
    return aws.Clients(cloud)


@pytest.fixture(scope="session")
def ec2(client):
    return client("ec2")


@pytest.fixture(scope="session")
def s3(client):
    return client("s3")


@pytest.fixture(scope="session")
def sts(client):
    return client("sts")


@pytest.fixture(scope="session")
def iam(client):
    return client("iam")


# ---- clients of the cloud with real guests ----

@pytest.fixture(scope="session")
def real_client(real_cloud):
    return aws.Clients(real_cloud)
