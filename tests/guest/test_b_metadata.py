# SPDX-License-Identifier: Apache-2.0
"""Instance metadata: tokens, and never a neighbour's."""
TTL = "X-aws-ec2-metadata-token-ttl-seconds: 60"
ITEM = "/latest/meta-data/instance-id"


def token_of(guest):
    status, token = guest.http("PUT", "/latest/api/token", TTL)
    assert status == 200 and token
    return token


def test_without_a_token_where_tokens_are_optional(first):
    assert first.http("GET", ITEM) == (200, first.id)


def test_without_a_token_where_they_are_required(second):
    assert second.http("GET", ITEM)[0] == 401


def test_with_a_token(second):
    assert second.http("GET", ITEM, f"X-aws-ec2-metadata-token: {token_of(second)}") == (200, second.id)


def test_a_made_up_token(second):
    assert second.http("GET", ITEM, "X-aws-ec2-metadata-token: AQAAAAAA")[0] == 401


def test_a_neighbours_token(first, second):
    assert second.http("GET", ITEM, f"X-aws-ec2-metadata-token: {token_of(first)}")[0] == 401


def test_a_token_is_not_given_through_a_proxy(second):
    assert second.http("PUT", "/latest/api/token", TTL, "X-Forwarded-For: 10.0.0.1")[0] == 403


def test_a_neighbours_address_gets_nothing(first, second):
    """The guest takes its neighbour's address and asks from there: silence, and then all is as before."""
    own, other = second.address, first.address
    second.ssh(f"""
        ip addr add {other}/32 dev eth0
        printf 'GET {ITEM} HTTP/1.0\\r\\n\\r\\n' | timeout 8 nc -w 5 -s {other} 169.254.169.254 80 > /tmp/stolen 2>/dev/null
        ip addr del {other}/32 dev eth0
        true""")
    assert second.ssh("cat /tmp/stolen") == ""
    assert second.http("GET", ITEM, f"X-aws-ec2-metadata-token: {token_of(second)}") == (200, second.id)
    assert own == second.address
