# SPDX-License-Identifier: Apache-2.0
"""What is acknowledged survives; what was half received leaves nothing."""
import os
import random
import socket
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from lib.cloud import wait_for
from lib.s3 import Signer, new_bucket, path_of

MIB = 1 << 20


@pytest.fixture
def bucket(s3):
    with new_bucket(s3, "crash") as name:
        yield name


def data_files(cloud):
    return {os.path.join(folder, name) for folder, _, names in os.walk(cloud.state / "walrus" / "data") for name in names}


def half_upload(cloud, path, declared, sent):
    """An open connection on which part of a PUT was sent."""
    signer = Signer(cloud)
    signed = signer.headers("PUT", path, headers={"content-length": str(declared)}, payload_hash="UNSIGNED-PAYLOAD")
    name, port = signer.host.split(":")
    s = socket.create_connection((name, int(port)), timeout=10)
    s.sendall((f"PUT {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in signed.items()) + "\r\n").encode())
    s.sendall(os.urandom(sent))
    return s


def test_half_upload_leaves_nothing(cloud, s3, bucket):
    before = data_files(cloud)
    s = half_upload(cloud, path_of(bucket, "half"), 10 * MIB, 4 * MIB)
    wait_for("the upload's data file", lambda: data_files(cloud) - before, 10)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    s.close()
    wait_for("the upload's data file to be gone", lambda: data_files(cloud) == before, 10)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_half_overwrite_keeps_the_old(cloud, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old" * 50000)
    half_upload(cloud, path_of(bucket, "k"), 10 * MIB, 2 * MIB).close()
    time.sleep(0.3)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old" * 50000


@pytest.mark.timeout(180)
def test_kill(cloud, client, s3, bucket):
    """kill -9 during uploads, again and again: every acknowledged object is there, every object there is whole."""
    acknowledged, lock, stop = {}, threading.Lock(), threading.Event()

    def write(worker):
        own = client("s3")
        chance = random.Random(worker)
        n = 0
        while not stop.is_set():
            key, n = f"w{worker}/{n % 6}", n + 1
            body = bytes([chance.randrange(256)]) * chance.choice([10, 5000, 100_000, 3_000_000])
            with lock:
                before = acknowledged.get(key, [None])
                acknowledged[key] = before + [body]  # until it is known, any of them may be there
            try:
                own.put_object(Bucket=bucket, Key=key, Body=body)
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
                continue
            with lock:
                acknowledged[key] = [body]

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    try:
        for _ in range(6):
            time.sleep(random.uniform(0.3, 1.0))
            old = cloud.kill("walrus")
            cloud.wait_restarted("walrus", old)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert sum(None not in bodies for bodies in acknowledged.values()) >= 12
    there = {o["Key"] for o in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}
    for key, bodies in acknowledged.items():
        if key not in there:
            assert None in bodies, key
            continue
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() in bodies, key


def test_kill_cleans_up(cloud, s3, bucket):
    s3.put_object(Bucket=bucket, Key="kept", Body=bytes(200_000))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=bytes(5 * MIB))
    before = data_files(cloud)
    s = half_upload(cloud, path_of(bucket, "half"), 10 * MIB, 4 * MIB)
    wait_for("the upload's data file", lambda: data_files(cloud) - before, 10)
    old = cloud.kill("walrus")
    cloud.wait_restarted("walrus", old)
    s.close()
    assert data_files(cloud) == before
    s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})  # uploads survive as well
    assert s3.head_object(Bucket=bucket, Key="m")["ContentLength"] == 5 * MIB


def test_controller_down(cloud, s3, bucket):
    """Who has been here before is served while the cloud controller is away."""
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    old = cloud.kill("clc")
    try:
        for n in range(5):
            s3.put_object(Bucket=bucket, Key=f"during/{n}", Body=b"y")
        assert s3.list_objects_v2(Bucket=bucket, Prefix="during/")["KeyCount"] == 5
    finally:
        cloud.wait_restarted("clc", old)
    s3.put_object(Bucket=bucket, Key="after", Body=b"z")


def test_memory_is_bounded(cloud, s3, bucket):
    """300 MB each way with far less memory."""
    def peak_kib():
        with open(f"/proc/{cloud.pid('walrus')}/status") as f:
            return int(next(line for line in f if line.startswith("VmHWM")).split()[1])

    class Zeros:
        def __init__(self, size):
            self.size, self.at = size, 0

        def read(self, n=-1):
            n = self.size - self.at if n < 0 else min(n, self.size - self.at)
            self.at += n
            return bytes(n)

        def __len__(self):
            return self.size

        def seek(self, to, whence=0):
            self.at = to + {0: 0, 1: self.at, 2: self.size}[whence]
            return self.at

        def tell(self):
            return self.at

    before = peak_kib()
    s3.put_object(Bucket=bucket, Key="large", Body=Zeros(300_000_000))
    body = s3.get_object(Bucket=bucket, Key="large")["Body"]
    total = 0
    while piece := body.read(1 << 20):
        total += len(piece)
    assert total == 300_000_000
    assert peak_kib() - before < 50_000


def test_metrics(cloud, s3, bucket):
    def value(name):
        text = cloud.get(cloud.port("ops-walrus"), "/metrics")[1]
        return int(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[1])

    before = [value("mallee_walrus_" + n) for n in ("requests_total", "received_bytes_total", "objects", "stored_bytes")]
    s3.put_object(Bucket=bucket, Key="m", Body=bytes(1000))
    after = [value("mallee_walrus_" + n) for n in ("requests_total", "received_bytes_total", "objects", "stored_bytes")]
    assert after[0] > before[0] and after[1] - before[1] >= 1000
    assert after[2] - before[2] == 1 and after[3] - before[3] == 1000
