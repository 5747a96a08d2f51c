# SPDX-License-Identifier: Apache-2.0
"""Short ways to look at instances."""
from .cloud import wait_for


def error_code(raised):
    return raised.value.response["Error"]["Code"]


def instance(ec2, instance_id):
    (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    return reservation["Instances"][0]


def state(ec2, instance_id):
    return instance(ec2, instance_id)["State"]["Name"]


def wait_state(ec2, instance_id, name, timeout_s=30):
    return wait_for(f"{instance_id} to be {name}", lambda: state(ec2, instance_id) == name, timeout_s)
