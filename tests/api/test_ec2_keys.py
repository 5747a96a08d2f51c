# SPDX-License-Identifier: Apache-2.0
"""Key pairs: made, imported, listed, deleted, as OpenSSH sees them."""
import subprocess

import pytest
from botocore.exceptions import ClientError


def code(excinfo):
    return excinfo.value.response["Error"]["Code"]


def ssh_keygen(*args):
    return subprocess.run(["ssh-keygen", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def key_name(ec2, request):
    name = "k-" + request.node.name[:60]
    yield name
    ec2.delete_key_pair(KeyName=name)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_made_key_is_one_that_openssh_reads(ec2, tmp_path, key_name, kind):
    key = ec2.create_key_pair(KeyName=key_name, KeyType=kind,
                              TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}])
    assert key["KeyName"] == key_name and key["KeyPairId"].startswith("key-")
    assert key["Tags"] == [{"Key": "a", "Value": "b"}]
    path = tmp_path / "key"
    path.write_text(key["KeyMaterial"])
    path.chmod(0o600)
    public = ssh_keygen("-y", "-f", str(path)).split()
    shown = ec2.describe_key_pairs(KeyNames=[key_name], IncludePublicKey=True)["KeyPairs"][0]
    assert shown["PublicKey"].split()[:2] == public[:2]
    assert shown["KeyType"] == kind and shown["KeyFingerprint"] == key["KeyFingerprint"]
    if kind == "ed25519":
        line = ssh_keygen("-l", "-f", str(path))
        assert key["KeyFingerprint"].rstrip("=") == line.split()[1].removeprefix("SHA256:")


def test_imported_key(ec2, tmp_path, key_name):
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", str(path))
    public = (tmp_path / "key.pub").read_bytes()
    out = ec2.import_key_pair(KeyName=key_name, PublicKeyMaterial=public)
    assert "KeyMaterial" not in out
    shown = ec2.describe_key_pairs(KeyPairIds=[out["KeyPairId"]], IncludePublicKey=True)["KeyPairs"][0]
    assert shown["PublicKey"].split()[1] == public.decode().split()[1]


def test_names_are_unique_and_deletion_is_idempotent(ec2, key_name):
    ec2.create_key_pair(KeyName=key_name, KeyType="ed25519")
    with pytest.raises(ClientError) as e:
        ec2.create_key_pair(KeyName=key_name, KeyType="ed25519")
    assert code(e) == "InvalidKeyPair.Duplicate"
    ec2.delete_key_pair(KeyName=key_name)
    ec2.delete_key_pair(KeyName=key_name)
    with pytest.raises(ClientError) as e:
        ec2.describe_key_pairs(KeyNames=[key_name])
    assert code(e) == "InvalidKeyPair.NotFound"


@pytest.mark.parametrize("call, want", [
    (lambda c: c.import_key_pair(KeyName="bad", PublicKeyMaterial=b"no key"), "InvalidKey.Format"),
    (lambda c: c.create_key_pair(KeyName=""), "InvalidParameterValue"),
    (lambda c: c.create_key_pair(KeyName="x" * 256), "InvalidParameterValue"),
    (lambda c: c.create_key_pair(KeyName="x", KeyType="dsa"), "InvalidParameterValue"),
    (lambda c: c.create_key_pair(KeyName="x", KeyFormat="ppk"), "InvalidParameterValue"),
    (lambda c: c.describe_key_pairs(KeyPairIds=["key-0123456789abcdef0"]), "InvalidKeyPair.NotFound"),
    (lambda c: c.describe_key_pairs(KeyPairIds=["mine"]), "InvalidParameterValue"),
    (lambda c: c.delete_key_pair(KeyPairId="mine"), "InvalidParameterValue"),
    (lambda c: c.create_key_pair(KeyName="x", TagSpecifications=[{"ResourceType": "instance", "Tags": []}]),
     "InvalidParameterValue"),
])
def test_bad_requests(ec2, call, want):
    with pytest.raises(ClientError) as e:
        call(ec2)
    assert code(e) == want


def test_dry_run_makes_nothing(ec2):
    with pytest.raises(ClientError) as e:
        ec2.create_key_pair(KeyName="dry", DryRun=True)
    assert code(e) == "DryRunOperation"
    assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert not ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": ["dry"]}])["KeyPairs"]


def test_another_account_sees_none(ec2, client, cloud, key_name):
    ec2.create_key_pair(KeyName=key_name, KeyType="ed25519")
    other = client("ec2", account="keys-other")
    assert other.describe_key_pairs()["KeyPairs"] == []
    other.delete_key_pair(KeyName=key_name)
    assert ec2.describe_key_pairs(KeyNames=[key_name])["KeyPairs"]
