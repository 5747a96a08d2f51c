# SPDX-License-Identifier: Apache-2.0
"""What botocore sends, for every action that we serve, is what our decoders read."""

import random

import aws
import pytest
import tool as golden
import values

ROUNDS = 40


@pytest.mark.parametrize("service,action", golden.served_actions())
def test_request(tool, service, action):
    overlay = golden.overlay(service)
    shape = aws.service_model(service).operation_model(action).input_shape
    rng = random.Random("%s.%s" % (service, action))
    for _ in range(ROUNDS):
        params = {}
        if shape is not None:
            params = values.Random(rng, service, overlay, action, True).struct(shape)
        answer = tool.ask(**aws.request(service, action, params))
        assert answer["action"] == action
        expected = values.without_empty(values.to_json(shape, params)) if shape else {}
        assert (answer["value"] or {}) == expected


@pytest.mark.parametrize("service,action",
                         [(s, a) for s, a in golden.served_actions() if s != "s3"])
def test_own_client(tool, service, action):
    """Our own encoder says what botocore's says: decoded again it is the same value."""
    overlay = golden.overlay(service)
    shape = aws.service_model(service).operation_model(action).input_shape
    rng = random.Random("own %s.%s" % (service, action))
    for _ in range(ROUNDS):
        params = values.Random(rng, service, overlay, action, True).struct(shape)
        value = values.without_empty(values.to_json(shape, params))
        body = tool.ask(op="encode", service=service, action=action, value=value)["body"]
        answer = tool.ask(op="query", service=service, body=body)
        assert answer == {"action": action, "value": value}


def unserved(service):
    """(action, parameter, value) for each input member that an action's own structure does not serve."""
    overlay = golden.overlay(service)
    for name, action in golden.served_actions():
        if name != service:
            continue
        shape = aws.service_model(service).operation_model(action).input_shape
        served = overlay["serves"][shape.name] if shape else "*"
        for member, member_shape in (shape.members if shape else {}).items():
            if served != "*" and member not in served and member != "DryRun":
                yield action, member, member_shape


@pytest.mark.parametrize("action,member,shape", unserved("ec2"))
def test_unserved_ec2(tool, action, member, shape):
    """Nothing that we do not serve is swallowed: it is named in the refusal."""
    overlay = golden.overlay("ec2")
    rng = random.Random(member)
    input_shape = aws.service_model("ec2").operation_model(action).input_shape
    params = values.Random(rng, "ec2", overlay, action, True).struct(input_shape)
    everything = values.Random(rng, "ec2", {}, action, False)
    for _ in range(20):  # a structure of optional members may come out empty
        params[member] = everything.value(shape, member)
        if params[member] is not None:
            break
    with pytest.raises(golden.Refused) as refused:
        tool.ask(**aws.request("ec2", action, params))
    assert refused.value.code == "UnsupportedOperation"
    name = shape.serialization.get("queryName") or shape.serialization.get("name", member)
    assert name[:1].upper() + name[1:] in refused.value.message


@pytest.mark.parametrize("action,member,shape", unserved("s3"))
def test_unserved_s3(tool, action, member, shape):
    overlay = golden.overlay("s3")
    rng = random.Random(member)
    input_shape = aws.service_model("s3").operation_model(action).input_shape
    params = values.Random(rng, "s3", overlay, action, True).struct(input_shape)
    params[member] = values.Random(rng, "s3", {}, action, False).value(shape, member)
    with pytest.raises(golden.Refused) as refused:
        tool.ask(**aws.request("s3", action, params))
    assert refused.value.code == "NotImplemented"
    assert refused.value.status == 501
