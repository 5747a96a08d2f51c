# SPDX-License-Identifier: Apache-2.0
"""Instances through Debian's `aws`, as `mallee aws` runs it."""
import json

import pytest

from lib.instances import wait_state


@pytest.fixture
def aws(cloud):
    def run(*args, check=True):
        done = cloud.run("aws", "--output", "json", *args, check=check)
        return json.loads(done.stdout) if check and done.stdout.strip() else done

    return run


def test_a_life(aws, ec2, image_id, tmp_path):
    script = tmp_path / "user-data"
    script.write_text("#!/bin/sh\necho hello\n")
    (new,) = aws("ec2", "run-instances", "--image-id", image_id, "--instance-type", "t2.nano", "--count", "1",
                 "--user-data", f"file://{script}", "--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=cli}]",
                 "--metadata-options", "HttpTokens=required")["Instances"]
    i = new["InstanceId"]
    try:
        wait_state(ec2, i, "running")
        aws("ec2", "wait", "instance-running", "--instance-ids", i)
        found = aws("ec2", "describe-instances", "--filters", "Name=tag:Name,Values=cl?", f"Name=instance-id,Values={i}",
                    "--query", "Reservations[].Instances[].[InstanceId,State.Name,MetadataOptions.HttpTokens]")
        assert found == [[i, "running", "required"]]
        status = aws("ec2", "describe-instance-status", "--instance-ids", i)["InstanceStatuses"]
        assert [s["InstanceState"]["Name"] for s in status] == ["running"]
        data = aws("ec2", "describe-instance-attribute", "--instance-id", i, "--attribute", "userData")
        assert data["UserData"]["Value"] == "IyEvYmluL3NoCmVjaG8gaGVsbG8K"
        aws("ec2", "reboot-instances", "--instance-ids", i)
        aws("ec2", "modify-instance-attribute", "--instance-id", i, "--disable-api-termination")
        refused = aws("ec2", "terminate-instances", "--instance-ids", i, check=False)
        assert refused.returncode == 254 and "OperationNotPermitted" in refused.stderr
    finally:
        aws("ec2", "modify-instance-attribute", "--instance-id", i, "--no-disable-api-termination")
        (change,) = aws("ec2", "terminate-instances", "--instance-ids", i)["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "shutting-down"
    wait_state(ec2, i, "terminated")
    aws("ec2", "wait", "instance-terminated", "--instance-ids", i)


@pytest.mark.parametrize("args,code", [
    (["terminate-instances", "--instance-ids", "i-00000000000000000"], "InvalidInstanceID.NotFound"),
    (["describe-instances", "--dry-run"], "DryRunOperation"),
    (["describe-security-groups"], "InvalidAction"),
])
def test_errors(aws, args, code):
    done = aws("ec2", *args, check=False)
    assert done.returncode == 254 and f"({code})" in done.stderr


def test_pages(aws, ec2, image_id):
    ids = [i["InstanceId"] for i in aws("ec2", "run-instances", "--image-id", image_id, "--instance-type", "t2.nano",
                                        "--count", "7", "--tag-specifications",
                                        "ResourceType=instance,Tags=[{Key=cli-pages,Value=x}]")["Instances"]]
    try:
        found = aws("ec2", "describe-instances", "--filters", "Name=tag-key,Values=cli-pages", "--page-size", "5",
                    "--query", "Reservations[].Instances[].InstanceId")
        assert found == ids
    finally:
        aws("ec2", "terminate-instances", "--instance-ids", *ids)
        for i in ids:
            wait_state(ec2, i, "terminated")
