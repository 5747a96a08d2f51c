#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
archive.py OUT.a COMPILER FLAG… -- SOURCE…

Compiles sources of ours a second time, with a fuzzer's compiler and sanitizers, into one archive, and
writes OUT.a.d so that ninja knows the headers. (Meson builds a project with one C compiler; the fuzz
targets need clang even where gcc builds the rest.)
"""

import concurrent.futures
import os
import re
import subprocess
import sys


def compile_one(compiler, flags, folder, number, source):
    stem = os.path.join(folder, "%03d-%s" % (number, os.path.basename(source)[:-2]))
    subprocess.run([compiler, *flags, "-MMD", "-MF", stem + ".d", "-c", source, "-o", stem + ".o"],
                   check=True)
    with open(stem + ".d", encoding="utf-8") as f:
        depends = f.read().partition(":")[2]
    return stem + ".o", re.findall(r"\S+", depends.replace("\\\n", " "))


def main():
    out, compiler = sys.argv[1:3]
    split = sys.argv.index("--")
    flags, sources = sys.argv[3:split], sys.argv[split + 1:]
    folder = out + ".p"
    os.makedirs(folder, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        made = list(pool.map(lambda p: compile_one(compiler, flags, folder, *p), enumerate(sources)))
    if os.path.exists(out):
        os.unlink(out)
    subprocess.run(["ar", "rcs", out] + [m[0] for m in made], check=True)
    with open(out + ".d", "w", encoding="utf-8") as f:
        f.write("%s: %s\n" % (out, " ".join(sorted({d for m in made for d in m[1]}))))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
