# SPDX-License-Identifier: Apache-2.0
"""Tags, on key pairs and the default VPC: resources that cost nothing."""
import pytest
from botocore.exceptions import ClientError


def code(excinfo):
    return excinfo.value.response["Error"]["Code"]


@pytest.fixture
def key(ec2, request):
    name = "t-" + request.node.name[:60]
    made = ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    yield made["KeyPairId"]
    ec2.delete_key_pair(KeyName=name)


def tags_of(ec2, resource):
    rows = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource]}])["Tags"]
    return {r["Key"]: r["Value"] for r in rows}


def test_create_replace_delete(ec2, key):
    ec2.create_tags(Resources=[key], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
    ec2.create_tags(Resources=[key], Tags=[{"Key": "a", "Value": "2"}])
    assert tags_of(ec2, key) == {"a": "2", "b": ""}
    ec2.delete_tags(Resources=[key], Tags=[{"Key": "a", "Value": "other"}])
    assert tags_of(ec2, key) == {"a": "2", "b": ""}
    ec2.delete_tags(Resources=[key], Tags=[{"Key": "a", "Value": "2"}])
    assert tags_of(ec2, key) == {"b": ""}
    ec2.create_tags(Resources=[key], Tags=[{"Key": "c", "Value": "3"}])
    ec2.delete_tags(Resources=[key], Tags=[{"Key": "c"}])
    assert tags_of(ec2, key) == {"b": ""}
    ec2.delete_tags(Resources=[key])
    assert tags_of(ec2, key) == {}


def test_tags_go_with_their_resource(ec2, key):
    ec2.create_tags(Resources=[key], Tags=[{"Key": "a", "Value": "1"}])
    ec2.delete_key_pair(KeyPairId=key)
    assert tags_of(ec2, key) == {}


def test_describe_filters(ec2, key):
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    ec2.create_tags(Resources=[key, vpc], Tags=[{"Key": "team", "Value": "blue*"}, {"Key": "env", "Value": "test"}])
    try:
        def ask(*filters):
            rows = ec2.describe_tags(Filters=[{"Name": n, "Values": v} for n, v in filters])["Tags"]
            return sorted((r["ResourceId"], r["Key"]) for r in rows)

        assert ask(("key", ["team"])) == sorted([(key, "team"), (vpc, "team")])
        assert ask(("resource-type", ["vpc"])) == [(vpc, "env"), (vpc, "team")]
        assert ask(("value", ["t?st"]), ("resource-id", [key])) == [(key, "env")]
        assert ask(("tag:team", ["blue\\*"]), ("resource-type", ["key-pair"])) == [(key, "team")]
        assert ask(("tag:team", ["red"])) == []
        shown = ec2.describe_key_pairs(Filters=[{"Name": "tag:env", "Values": ["te*", "prod"]}])["KeyPairs"]
        assert [k["KeyPairId"] for k in shown] == [key]
        assert ec2.describe_key_pairs(Filters=[{"Name": "tag-key", "Values": ["nothing"]}])["KeyPairs"] == []
    finally:
        ec2.delete_tags(Resources=[vpc])


def test_paging(ec2, key):
    ec2.create_tags(Resources=[key], Tags=[{"Key": f"k{i:02}", "Value": str(i)} for i in range(17)])
    pages = ec2.get_paginator("describe_tags").paginate(
        Filters=[{"Name": "resource-id", "Values": [key]}], PaginationConfig={"PageSize": 5})
    rows = [r["Key"] for p in pages for r in p["Tags"]]
    assert sorted(rows) == [f"k{i:02}" for i in range(17)]


@pytest.mark.parametrize("tags, want", [
    ([{"Key": "", "Value": "x"}], "InvalidParameterValue"),
    ([{"Key": "aws:mine", "Value": "x"}], "InvalidParameterValue"),
    ([{"Key": "k" * 128, "Value": "x"}], "InvalidParameterValue"),
    ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
    ([{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}], "InvalidParameterValue"),
    ([{"Key": f"k{i}", "Value": "x"} for i in range(51)], "TagLimitExceeded"),
])
def test_bad_tags(ec2, key, tags, want):
    with pytest.raises(ClientError) as e:
        ec2.create_tags(Resources=[key], Tags=tags)
    assert code(e) == want
    assert tags_of(ec2, key) == {}


def test_longest(ec2, key):
    ec2.create_tags(Resources=[key], Tags=[{"Key": "\u00e4" * 127, "Value": "\u00e4" * 256}])
    assert tags_of(ec2, key) == {"\u00e4" * 127: "\u00e4" * 256}


def test_limits_count_what_is_there(ec2, key):
    ec2.create_tags(Resources=[key], Tags=[{"Key": f"k{i}", "Value": "x"} for i in range(50)])
    ec2.create_tags(Resources=[key], Tags=[{"Key": "k0", "Value": "again"}])
    with pytest.raises(ClientError) as e:
        ec2.create_tags(Resources=[key], Tags=[{"Key": "one-more", "Value": ""}])
    assert code(e) == "TagLimitExceeded"


@pytest.mark.parametrize("resource, want", [
    ("nonsense", "InvalidID"),
    ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
    ("i-xyz", "InvalidInstanceID.Malformed"),
    ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
])
def test_unknown_resources(ec2, key, resource, want):
    with pytest.raises(ClientError) as e:
        ec2.create_tags(Resources=[key, resource], Tags=[{"Key": "a", "Value": "b"}])
    assert code(e) == want
    assert tags_of(ec2, key) == {}, "all or nothing"


def test_accounts_are_apart(ec2, client, key):
    other = client("ec2", account="tags-other")
    with pytest.raises(ClientError) as e:
        other.create_tags(Resources=[key], Tags=[{"Key": "a", "Value": "b"}])
    assert code(e) == "InvalidKeyPair.NotFound"
    ec2.create_tags(Resources=[key], Tags=[{"Key": "a", "Value": "b"}])
    assert other.describe_tags()["Tags"] == []
