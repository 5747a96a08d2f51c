# SPDX-License-Identifier: Apache-2.0
"""Show a kept result: as tables here, or as a report in HTML, CSV or JSON. Without a name: which are kept."""
import sys

from paper import store
from paper.csv_file import write_csv
from paper.html_file import write_html
from paper.result import BadResult, check, write_json
from paper.table import print_table

WRITERS = [("json", write_json, "the result as it is kept"), ("csv", write_csv, "a line a row"),
           ("html", write_html, "a report to read and print: plots, tables, diagnosis, every run")]


def add_output_arguments(parser):
    """Where else a result goes; of every command that makes or shows one."""
    for name, _, about in WRITERS:
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write {about}")


def write_outputs(result, args, say):
    for name, write, _ in WRITERS:
        path = getattr(args, name, None)
        if path:
            write(result, path)
            say(f"written: {path}")


def finish(result, args, out=None):
    """What an experiment does with its result: keep it, show it, write what was asked for. Returns the file it is kept in."""
    check(result)
    path = store.keep(result)
    print_table(result, out)
    print(f"\nkept: {path} (`mallee bench report {path.stem} --html FILE`)", file=out or sys.stdout)
    write_outputs(result, args, lambda text: print(text, file=out or sys.stdout))
    return path


def add_arguments(parser):
    parser.add_argument("result", nargs="?", metavar="FILE|NAME", help="a file, the name of a kept result, or `last`")
    add_output_arguments(parser)


def run(args):
    if not args.result:
        print(store.list_text())
        return 0
    try:
        result = store.load(args.result)
        if not (args.json or args.csv or args.html):
            print_table(result)
        write_outputs(result, args, print)
    except BadResult as e:
        print(f"mallee bench report: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as e:
        print(f"mallee bench report: {e.filename or ''}: {e.strerror}", file=sys.stderr)
        return 2
    return 0
