#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`mallee bench`: measure what virtualization costs on this machine, and read what was measured.

Each command is a module with `add_arguments(parser)` and `run(args)`, which returns the exit code. Only the one that is asked for
is loaded. Exit codes: 0 done, 1 not all could be measured (or a comparison found a loss), 2 asked wrongly.
"""
import argparse
import importlib
import os
import sys
from pathlib import Path

import installed

FOLDER = Path(__file__).resolve().parent

# Name, module, what it does.
COMMANDS = {
    "disk": ("paper.disk", "what guests get of a disk, over hypervisor, target and driver: the study's Tables 1 and 2"),
    "net": ("paper.net", "what guests get of the network, over NICs: the study's Figure 4"),
    "block": (None, "the block engine beside QEMU's and others' servers"),
    "report": ("paper.report", "show a kept result: as tables, as HTML, as CSV"),
    "compare": ("paper.compare", "two results row by row; without names: which are kept"),
    "paper": ("paper.suite", "both, within half an hour: paper.json and the tables of docs/paper.md"),
    "paper-doc": ("paper.doc", "put a result's tables into docs/paper.md"),
}

# No modules: `mallee` does these itself.
OTHERS = [("explain", "a result from standard input, and what holds its rows back and what the model expects"),
          ("model", "the study's tables as the model predicts them")]


def usage():
    width = max(map(len, COMMANDS))
    commands = [(name, what) for name, (_, what) in COMMANDS.items()] + OTHERS
    lines = [f"  {name:<{width}}  {what}" for name, what in commands]
    return "usage: mallee bench COMMAND …\n\n" + "\n".join(lines) + "\n\n`mallee bench COMMAND --help` tells a command's options."


def load(module):
    """The command's module, or None when this installation has none."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name not in (module, module.partition(".")[0]):
            raise
        return None


def run_block(argv):
    """It is a program of its own."""
    os.execv("/usr/bin/python3", ["/usr/bin/python3", str(FOLDER / "block.py"), *argv])


def main(argv):
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        print(f"mallee bench: there is no command '{name}'\n\n{usage()}", file=sys.stderr)
        return 2
    installed.settle(FOLDER)
    module_name, what = COMMANDS[name]
    if module_name is None:
        return run_block(rest)
    module = load(module_name)
    if module is None:
        print(f"mallee bench {name}: {FOLDER}/{module_name.replace('.', '/')}.py is missing from this installation", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog=f"mallee bench {name}", description=module.__doc__ or what,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    try:
        return module.run(parser.parse_args(rest))
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"mallee bench {name}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
