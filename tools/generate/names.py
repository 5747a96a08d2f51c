# SPDX-License-Identifier: Apache-2.0
"""How the models' names become C names."""

import re

C_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef
    union unsigned void volatile while bool true false asm typeof linux unix""".split()
)


def snake(name):
    """RunInstancesRequest -> run_instances_request, VCpuInfo -> v_cpu_info, ETag -> e_tag."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    name = re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def field(name):
    """The C member of a model's member: snake case, a keyword gets a trailing underscore."""
    name = snake(name)
    return name + "_" if name in C_KEYWORDS else name


def upper_first(name):
    return name[:1].upper() + name[1:]


def c_string(text):
    """A C string literal, or NULL for None."""
    if text is None:
        return "NULL"
    out = []
    for byte in text.encode("utf-8"):
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append("\\%03o" % byte)
    return '"%s"' % "".join(out)
