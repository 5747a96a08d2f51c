# SPDX-License-Identifier: Apache-2.0
"""Clients as people have them: Debian's aws, and others where they are installed."""
import filecmp
import os
import shutil
import subprocess
import time

import pytest
from lib.s3 import new_bucket

AWS = "/usr/bin/aws"


@pytest.fixture(scope="module")
def bucket(s3):
    with new_bucket(s3, "cli") as name:
        yield name


@pytest.fixture
def aws(cloud):
    env = dict(cloud.env, **cloud.account_env())

    def run(*args, code=0):
        done = subprocess.run([AWS, "--endpoint-url", cloud.endpoint("s3"), *map(str, args)], env=env, text=True,
                              capture_output=True, timeout=110)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr
    return run


def test_200_mb(aws, bucket, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    with source.open("wb") as f:
        for _ in range(200):
            f.write(os.urandom(1_000_000))
    aws("s3", "cp", "--no-progress", source, f"s3://{bucket}/dir/source")
    assert "200000000 dir/source" in aws("s3", "ls", "--recursive", f"s3://{bucket}")
    aws("s3", "cp", "--no-progress", f"s3://{bucket}/dir/source", back)
    assert filecmp.cmp(source, back, shallow=False)


def test_tour(aws, bucket, tmp_path):
    for name in ("a.txt", "b c.txt", "sub/d.txt"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(name)
        # S3 tells whole seconds: a file of the second of its upload would count as newer than its object.
        an_hour_ago = time.time() - 3600
        os.utime(tmp_path / "tree" / name, (an_hour_ago, an_hour_ago))
    aws("s3", "sync", tmp_path / "tree", f"s3://{bucket}/tree")
    assert "PRE tree/" in aws("s3", "ls", f"s3://{bucket}/")
    assert "upload:" not in aws("s3", "sync", tmp_path / "tree", f"s3://{bucket}/tree")
    aws("s3", "sync", f"s3://{bucket}/tree", tmp_path / "back")
    assert (tmp_path / "back/sub/d.txt").read_text() == "sub/d.txt"
    aws("s3", "rm", "--recursive", f"s3://{bucket}/tree")
    assert "tree" not in aws("s3", "ls", f"s3://{bucket}/")


def test_buckets(aws):
    name = "cli-" + os.urandom(6).hex()
    aws("s3", "mb", f"s3://{name}")
    assert name in aws("s3", "ls")
    aws("s3", "rb", f"s3://{name}")
    assert name not in aws("s3", "ls")


def test_errors_are_readable(aws):
    assert "NoSuchBucket" in aws("s3", "ls", "s3://no-such-bucket-anywhere", code=254)
    assert "NotImplemented" in aws("s3api", "put-bucket-versioning", "--bucket", "no-such-bucket-anywhere",
                                   "--versioning-configuration", "Status=Enabled", code=254)


@pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed")
def test_rclone(cloud, bucket, tmp_path):
    account = cloud.account_env()
    remote = (f":s3,provider=Other,env_auth=false,access_key_id={account['AWS_ACCESS_KEY_ID']},"
              f"secret_access_key={account['AWS_SECRET_ACCESS_KEY']},endpoint='{cloud.endpoint('s3')}':{bucket}/rclone")
    (tmp_path / "f").write_bytes(os.urandom(12_000_000))
    for command in (["copy", str(tmp_path), remote], ["check", str(tmp_path), remote], ["purge", remote]):
        subprocess.run(["rclone", "--retries", "1", "--s3-chunk-size", "5M", "--s3-upload-cutoff", "5M", *command],
                       check=True, timeout=100, env=cloud.env)


@pytest.mark.skipif(not shutil.which("restic"), reason="restic is not installed")
def test_restic(cloud, bucket, tmp_path):
    env = dict(cloud.env, **cloud.account_env(), RESTIC_PASSWORD="x", RESTIC_REPOSITORY=f"s3:{cloud.endpoint('s3')}/{bucket}/restic")
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    (source / "f").write_bytes(os.urandom(5_000_000))
    for command in (["init"], ["backup", str(source)], ["check", "--read-data"],
                    ["restore", "latest", "--target", str(back)], ["forget", "latest", "--keep-last", "1", "--prune"]):
        subprocess.run(["restic", *command], check=True, timeout=100, env=env, capture_output=True)
    assert filecmp.cmp(source / "f", str(back) + str(source / "f"), shallow=False)
