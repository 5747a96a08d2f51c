#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Generates the C of one service, or the list of what all services serve. README.md here tells how.

    generate.py c    --name ec2 --model …/service-2.json --overlay api/overlay/ec2.json
                     --actions api/actions.json --out DIR
    generate.py c    --name cluster --model api/internal/cluster.json
                     --shared api/internal/shared.json --out DIR
    generate.py docs --api-dir api --out docs/api.md      or --check docs/api.md
    generate.py where ec2    prints the path of the installed botocore's model of a service
"""

import argparse
import os
import sys

import docs
import emit_c
import emit_handlers
from model import ModelError, Service, load_json, load_model

API_VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15", "iam": "2010-05-08", "s3": "2006-03-01"}


def model_path(name):
    """The model in MALLEE_MODELS (a botocore data folder), else in the installed botocore."""
    data = os.environ.get("MALLEE_MODELS")
    if not data:
        import botocore

        data = os.path.join(os.path.dirname(botocore.__file__), "data")
    path = os.path.join(data, name, API_VERSIONS[name], "service-2.json")
    for candidate in (path, path + ".gz"):
        if os.path.exists(candidate):
            return candidate
    raise ModelError("no model of %s: %s is not there; is python3-botocore installed?"
                     % (name, path))


def load_api(name, model, overlay, actions):
    """One of Amazon's services."""
    served = load_json(actions).get(name)
    if served is None:
        raise ModelError("%s does not name %s" % (actions, name))
    return Service(name, load_model(model), load_json(overlay), served)


def load_own(name, path, shared_path):
    """One of our own."""
    model = load_json(path)
    shared = None
    uses = model["metadata"].get("uses")
    if uses:
        shared = Service(uses, load_json(shared_path), {}, [])
    return Service(name, model, {}, sorted(model["operations"]), shared)


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(text)


def generate_c(args):
    if args.overlay:
        service = load_api(args.name, args.model, args.overlay, args.actions)
    else:
        service = load_own(args.name, args.model, args.shared)
    write(args.out, args.name + ".h", emit_c.header(service))
    write(args.out, args.name + ".c", emit_c.source(service))
    if args.overlay:
        write(args.out, args.name + "_handlers.h", emit_handlers.handlers(service))
        write(args.out, args.name + "_dispatch.h", emit_handlers.dispatch(service))
    elif service.actions:
        write(args.out, args.name + "_rpc.h", emit_handlers.rpc(service))


OWN = ["cluster", "node", "identity", "admin", "objects"]


def generate_docs(args):
    import botocore

    def path(*parts):
        return os.path.join(args.api_dir, *parts)

    apis = [load_api(n, model_path(n), path("overlay", n + ".json"), path("actions.json"))
            for n in ("ec2", "s3", "sts", "iam")]
    own = [load_own(n, path("internal", n + ".json"), path("internal", "shared.json")) for n in OWN]
    text = docs.api_docs(apis, own, botocore.__version__)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)
        return
    with open(args.check, encoding="utf-8") as f:
        kept = f.read()
    if "botocore %s," % botocore.__version__ not in kept:
        print("%s was made from another botocore than the installed %s: not compared"
              % (args.check, botocore.__version__))
        sys.exit(77)  # a skip, to meson
    if kept != text:
        sys.exit("%s is not what the overlays say now: run ninja -C build api-docs" % args.check)


def main():
    parser = argparse.ArgumentParser(description="Generates Mallee's wire from service models.")
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("c", help="C of one service")
    c.add_argument("--name", required=True)
    c.add_argument("--model", required=True)
    c.add_argument("--overlay")
    c.add_argument("--actions")
    c.add_argument("--shared")
    c.add_argument("--out", required=True)
    where = commands.add_parser("where", help="print the path of a service's model")
    where.add_argument("name", choices=sorted(API_VERSIONS))
    d = commands.add_parser("docs", help="docs/api.md, written or compared")
    d.add_argument("--api-dir", required=True)
    what = d.add_mutually_exclusive_group(required=True)
    what.add_argument("--out")
    what.add_argument("--check")
    args = parser.parse_args()
    try:
        if args.command == "where":
            print(model_path(args.name))
        elif args.command == "c":
            generate_c(args)
        elif args.command == "docs":
            generate_docs(args)
    except ModelError as error:
        sys.exit("generate: %s" % error)


if __name__ == "__main__":
    main()
