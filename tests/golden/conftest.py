# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tool as golden  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: needs the network or minutes")


@pytest.fixture(scope="session")
def tool():
    """The codecs; that they end cleanly is part of the test (sanitizers speak up then)."""
    t = golden.Tool()
    yield t
    assert t.close() == 0
