# SPDX-License-Identifier: Apache-2.0
"""What our encoders write, for every action that we serve, is what botocore reads."""

import json
import os
import random
import xml.etree.ElementTree as ElementTree

import aws
import pytest
import tool as golden
import values

ROUNDS = 25

# Its body is an element with text, which botocore reads in a hook of its own: test_bucket_location.
ALL = [p for p in golden.served_actions() if p != ("s3", "GetBucketLocation")]


def make(service, action, rng):
    shape = aws.service_model(service).operation_model(action).output_shape
    if shape is None or action in golden.overlay(service).get("no_output", []):
        return None, None
    return shape, values.Random(rng, service, {}, action, False).struct(shape)


@pytest.mark.parametrize("service,action", ALL)
def test_reply(tool, service, action):
    rng = random.Random("reply %s.%s" % (service, action))
    for _ in range(ROUNDS):
        shape, value = make(service, action, rng)
        ours = values.to_json(shape, value) if shape else None
        answer = tool.ask(op="reply", service=service, action=action, value=ours)
        parsed = aws.parse_reply(service, action, answer)
        if shape is None:
            assert parsed in ({}, {"Return": True})  # newer models give <return> a name
            continue
        assert values.without_empty(values.to_json(shape, parsed)) == values.without_empty(ours)


@pytest.mark.parametrize("service,action", [p for p in ALL if p[0] != "s3"])
def test_own_client(tool, service, action):
    rng = random.Random("own reply %s.%s" % (service, action))
    for _ in range(ROUNDS):
        shape, value = make(service, action, rng)
        ours = values.to_json(shape, value) if shape else None
        answer = tool.ask(op="reply", service=service, action=action, value=ours)
        assert tool.ask(op="read", service=service, action=action,
                        body=answer["body"])["value"] == ours


def test_bucket_location(tool):
    answer = tool.ask(op="reply", service="s3", action="GetBucketLocation",
                      value={"LocationConstraint": "eu-west-1"})
    root = ElementTree.fromstring(answer["body"])
    assert root.tag == "{http://s3.amazonaws.com/doc/2006-03-01/}LocationConstraint"
    assert root.text == "eu-west-1" and len(root) == 0


def test_no_output_is_true(tool):
    body = tool.ask(op="reply", service="ec2", action="RebootInstances", value=None)["body"]
    root = ElementTree.fromstring(body)
    names = [e.tag.partition("}")[2] for e in root]
    assert names == ["requestId", "return"] and root[1].text == "true"


def test_empty_list_is_an_element(tool):
    body = tool.ask(op="reply", service="ec2", action="DescribeInstances",
                    value={"Reservations": []})["body"]
    assert [e.tag.partition("}")[2] for e in ElementTree.fromstring(body)] == [
        "requestId", "reservationSet"]


@pytest.mark.parametrize("service", ["ec2", "sts", "iam", "s3"])
def test_errors(tool, service):
    """Every code of the overlay, as botocore reads it."""
    import botocore.parsers

    protocol = aws.service_model(service).metadata["protocol"]
    for code, entry in golden.overlay(service)["errors"].items():
        answer = tool.ask(op="error", service=service, code=code, message="why: <&>")
        assert answer["status"] == entry["status"]
        parsed = botocore.parsers.create_parser(protocol).parse(
            {"status_code": max(answer["status"], 400), "headers": {}, "body": answer["body"].encode()},
            None)
        assert parsed["Error"]["Code"] == code
        assert parsed["Error"]["Message"] == "why: <&>"


@pytest.mark.parametrize("service", ["ec2", "sts", "iam"])
def test_own_client_reads_errors(tool, service):
    body = tool.ask(op="error", service=service, code="AccessDenied", message="no")["body"]
    actions = [a for s, a in golden.served_actions() if s == service]
    for action in actions:
        with pytest.raises(golden.Refused) as refused:
            tool.ask(op="read", service=service, action=action, body=body)
        assert (refused.value.code, refused.value.message) == ("AccessDenied", "no")


def exact():
    with open(os.path.join(os.path.dirname(__file__), "replies.json"), encoding="utf-8") as f:
        return json.load(f)


@pytest.mark.parametrize("case", exact(), ids=lambda c: c.get("action") or c["error"])
def test_exact(tool, case):
    """To the byte: what other clients than botocore may depend on (order, empty elements, namespaces)."""
    if "error" in case:
        answer = tool.ask(op="error", service=case["service"], code=case["error"], message=case["message"])
    else:
        answer = tool.ask(op="reply", service=case["service"], action=case["action"], value=case["value"])
        assert answer["headers"] == case["headers"]
    assert (answer["status"], answer["body"]) == (case["status"], case["body"])
