# SPDX-License-Identifier: Apache-2.0
"""STS: who signed a request."""
import re

import pytest
from botocore.exceptions import ClientError


def test_root_of_an_account(sts):
    me = sts.get_caller_identity()
    assert re.fullmatch(r"[0-9]{12}", me["Account"])
    assert me["UserId"] == me["Account"]
    assert me["Arn"] == f"arn:aws:iam::{me['Account']}:root"


def test_accounts_differ(sts, client):
    other = client("sts", account="sts-other").get_caller_identity()
    assert other["Account"] != sts.get_caller_identity()["Account"]


def test_unserved_action_is_refused(sts):
    with pytest.raises(ClientError) as e:
        sts.get_session_token()
    assert e.value.response["Error"]["Code"] == "InvalidAction"


def test_iam_has_no_actions_yet(iam):
    with pytest.raises(ClientError) as e:
        iam.list_users()
    assert e.value.response["Error"]["Code"] == "InvalidAction"
    assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
