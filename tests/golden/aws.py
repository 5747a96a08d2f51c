# SPDX-License-Identifier: Apache-2.0
"""botocore as the other end of the wire: its serializers make requests, its parsers read replies."""

import urllib.parse

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize
from botocore.compat import HTTPHeaders
from botocore.utils import percent_encode_sequence

_models = {}


def service_model(service):
    if service not in _models:
        description = botocore.loaders.Loader().load_service_model(service, "service-2")
        _models[service] = botocore.model.ServiceModel(description, service)
    return _models[service]


def request(service, action, params):
    """The golden_tool command that asks for the decoding of what botocore would send."""
    model = service_model(service)
    serializer = botocore.serialize.create_serializer(model.metadata["protocol"], False)
    made = serializer.serialize_to_request(params, model.operation_model(action))
    if model.metadata["protocol"] != "rest-xml":
        return {"op": "query", "service": service, "body": urllib.parse.urlencode(made["body"])}
    path, _, literal = made["url_path"].partition("?")
    bucket, _, key = path.lstrip("/").partition("/")
    query = [q for q in (literal, percent_encode_sequence(made["query_string"])) if q]
    command = {
        "op": "rest",
        "service": service,
        "method": made["method"],
        "bucket": urllib.parse.unquote(bucket) or None,
        "key": urllib.parse.unquote(key) or None,
        "query": "&".join(query),
        "headers": [[k, str(v)] for k, v in made["headers"].items()],
    }
    streams = any(m.serialization.get("streaming") for m in _members(model, action).values())
    if not streams:
        body = made["body"] or b""
        command["body"] = body.decode() if isinstance(body, bytes) else body
    return command


def _members(model, action):
    shape = model.operation_model(action).input_shape
    return shape.members if shape else {}


def parse_reply(service, action, answer):
    """What botocore makes of our reply; its own additions removed."""
    model = service_model(service)
    operation = model.operation_model(action)
    parser = botocore.parsers.create_parser(model.metadata["protocol"])
    headers = HTTPHeaders()
    for name, value in answer["headers"]:
        headers[name] = value
    parsed = parser.parse(
        {"status_code": answer["status"], "headers": headers, "body": answer["body"].encode()},
        operation.output_shape)
    parsed.pop("ResponseMetadata", None)
    if operation.has_streaming_output:
        parsed.pop("Body", None)
    return parsed
