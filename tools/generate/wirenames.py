# SPDX-License-Identifier: Apache-2.0
"""
Where a member travels and under which names, by protocol. Two names each, since EC2 reads
parameters under other names (queryName, capitals) than it writes elements (locationName).

    protocol    input name                                    output name
    ec2         queryName, else LocationName, else the name   locationName, else the name
    query       locationName, else the name                   locationName, else the name
    rest-xml    locationName, else the name                   the same; a flattened list's item's first
    mallee-rpc  the name                                      the name
"""

import names


def fill(protocol, member):
    traits = member.traits
    given = traits.get("locationName")
    if protocol == "mallee-rpc":
        return
    member.wire_out = given or member.name
    if protocol == "ec2":
        member.wire_in = traits.get("queryName") or names.upper_first(given or member.name)
        return
    member.wire_in = given or member.name
    is_list = member.shape.kind == "list"
    member.flattened = is_list and bool(traits.get("flattened"))
    if protocol == "query":
        member.member_list = is_list and not member.flattened
        return
    member.location = {
        "uri": "uri",
        "querystring": "query",
        "header": "header",
        "headers": "headers",
        "statusCode": "status",
    }.get(traits.get("location"), "body")
    if member.flattened:
        member.wire_out = member.shape.model["member"].get("locationName") or member.wire_out
    if member.shape.kind == "time":
        default = "http" if member.location == "header" else "iso"
        member.time_format = {
            "rfc822": "http",
            "iso8601": "iso",
            "unixTimestamp": "epoch",
        }.get(traits.get("timestampFormat"), default)


def item_name(protocol, ref):
    """Element name of a wrapped list's items on output."""
    return ref.get("locationName") or ("item" if protocol == "ec2" else "member")


def output_root(service, action):
    """EC2: the reply's element. Query: the result's wrapper. REST-XML: the body's root element."""
    given = service.overlay.get("roots", {}).get(action.name)
    if given:
        return given
    if service.protocol == "ec2":
        return action.name + "Response"
    if service.protocol == "query":
        return action.model.get("output", {}).get("resultWrapper")
    if service.protocol == "rest-xml" and action.output:
        for member in action.output.members:
            if member.payload and member.shape.kind == "struct":
                return member.wire_out
        return action.output.name
    return None


class Route:
    """How a REST request finds its action."""

    def __init__(self, method, labels, query, header, status):
        self.method = method
        self.labels = labels  # 0 service, 1 bucket, 2 bucket and key
        self.query = query  # "key" or "key=value", all needed
        self.header = header
        self.status = status

    @property
    def order(self):
        """The most particular first."""
        return (-len(self.query) - (1 if self.header else 0),)


def route(service, action):
    """From the request's form in the model: what stands literally behind '?', and the query keys that
    the input requires. The overlay adds headers that decide (`x-amz-copy-source`)."""
    http = action.model["http"]
    given = service.overlay.get("routes", {}).get(action.name, {})
    members = action.input.members if action.input else []
    labels = sum(1 for m in members if m.location == "uri")
    literal = http["requestUri"].partition("?")[2]
    query = [q for q in literal.split("&") if q and not q.startswith("x-id=")]
    query += [m.wire_in for m in members if m.location == "query" and m.required]
    return Route(http["method"], labels, given.get("query", query), given.get("header"),
                 given.get("status", http.get("responseCode", 200)))


def subresources(service):
    """Every literal query key of the model's requests ("acl", "policy", …): a request that carries one and
    finds no route is an action that we do not serve, not a plain GET with a stray parameter."""
    keys = set()
    for operation in service.operations.values():
        literal = operation["http"]["requestUri"].partition("?")[2]
        keys |= {q.partition("=")[0] for q in literal.split("&") if q}
    return sorted(keys - {"x-id", "list-type"})
