# SPDX-License-Identifier: Apache-2.0
"""docs/model.md tells what the model says now, and `explain` puts it beside what was measured."""
import json
import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
MALLEE = (SOURCE / os.environ.get("MALLEE_BUILD", "build")).resolve() / "mallee"
BEGIN, END = "<!-- mallee bench model -->\n", "<!-- end of mallee bench model -->\n"


def run(*args, text=None):
    return subprocess.run([MALLEE, "bench", *args], input=text, capture_output=True, text=True, check=False, timeout=60)


def test_the_document_holds_what_is_printed():
    done = run("model")
    assert done.returncode == 0, done.stderr
    before, _, rest = (SOURCE / "docs" / "model.md").read_text().partition(BEGIN)
    inside, end, _ = rest.partition(END)
    assert before and end
    assert inside == done.stdout, "put into docs/model.md what `mallee bench model` prints"


def test_every_row_of_the_study_is_there():
    rows = json.loads((SOURCE / "bench" / "study.json").read_text())["rows"]
    printed = run("model").stdout.splitlines()
    studies = [line for line in printed if line.startswith(("| KVM ", "| Xen ", "| EC2 ", "| none | local disk", "| none | EBS"))]
    assert len(studies) == len(rows) == 38
    assert sum("not modelled" in line for line in studies) == 4
    assert sum("| fitted |" in line for line in printed) <= 9


def test_model_takes_no_arguments():
    assert run("model", "more").returncode == 64
    assert "usage: mallee bench model" in run("model", "--help").stdout


def row(configuration, workload, **more):
    return {"configuration": configuration, "workload": workload, "why_empty": None, **more}


def explained(*rows):
    result = {"version": 1, "kind": "disk", "settings": {"disk": "model barracuda-7200.11", "rate_mb_s": 112}, "rows": list(rows)}
    done = run("explain", text=json.dumps(result))
    assert done.returncode == 0, done.stderr
    return [one["model"] for one in json.loads(done.stdout)["rows"]]


PATH = {"depth": 1, "request_bytes": 65536, "disk_mb_s": 112}


def test_explain_predicts_from_the_depth_1_row():
    direct, deep, buffered = explained(row("disk-virtio-phy", "direct-read", mb_s=52, path=PATH),
                                       row("disk-virtio-phy", "aio8-read", mb_s=105, path={**PATH, "depth": 8}),
                                       row("disk-virtio-phy", "dd-read", mb_s=90, path=PATH))
    assert direct["reference"] and abs(direct["mb_s"] - 52) < 0.1 and direct["full_first"] == "depth"
    assert not deep["reference"] and deep["mb_s"] == 112 and deep["util_percent"] == 100 and deep["full_first"] == "disk"
    assert buffered["avgrq_sectors"] == 256


def test_explain_says_nothing_where_it_knows_nothing():
    models = explained(row("ec2-ebs", "dd-read", mb_s=68), row("disk-nvme", "dd-read", why_empty="no such device"),
                       row("disk-nvme", "rand-read", mb_s=1, path=PATH), row("virtio-net", "tcp-to-guest", mbit_s=900))
    assert models == [None, None, None, None]


def test_explain_takes_the_processor_into_account():
    [model] = explained(row("disk-nvme", "aio32-read", mb_s=50, path={**PATH, "depth": 32, "guest_cpu_percent": 100}))
    assert model["full_first"] == "cpu" and abs(model["mb_s"] - 50) < 0.01


def test_explain_takes_the_hosts_cache_as_the_host_showed_it():
    host, guest = explained(row("none", "dd-read", mb_s=110, avgrq_sectors=2400, avgqu=3.3, util_percent=99, path=PATH),
                            row("disk-virtio-tap", "dd-read", mb_s=100, path={**PATH, "host_cache": True}))
    assert host["reference"] and not guest["reference"]
    assert guest["avgrq_sectors"] == 2400 and abs(guest["avgqu"] - 3.3) < 0.01


def test_explain_counts_flushes_of_a_sparse_file():
    path = {**PATH, "host_cache": True, "sparse": True, "flushes_s": 40, "metadata_writes_s": 40}
    [model] = explained(row("file-scsi", "dd-write", mb_s=2.62144, path=path))  # 20 requests of 128 KiB a second
    assert 2 < model["mb_s"] < 4 and model["avgrq_sectors"] < 100 and model["util_percent"] > 90


def test_explain_predicts_random_requests_from_the_hosts():
    _, guest = explained(row("none", "rand-read", mb_s=0.5, iops=125, util_percent=97, path={**PATH, "depth": 8, "request_bytes": 4096}),
                         row("disk-nvme", "rand-read", mb_s=0.5, iops=120, path={**PATH, "depth": 8, "request_bytes": 4096}))
    assert abs(guest["iops"] - 125 / 0.97) < 0.2 and guest["avgrq_sectors"] == 8
