# SPDX-License-Identifier: Apache-2.0
"""
Prints the meeting point of tables and handlers: typed prototypes, and a table of thunks from `void *`
to them. A listed action without a handler is thus a link error, never a surprise at run time.
"""

from emit_c import NOTICE, in_order
from names import snake


def guarded(name, body):
    guard = "MALLEE_GEN_%s_H" % name.upper()
    return "%s#ifndef %s\n#define %s\n\n%s\n#endif\n" % (NOTICE, guard, guard, body)


def function(service, action):
    return "%s_%s" % (service.name, snake(action.name))


def parameters(action):
    """The input and output parameters of a handler; none for what the action does not have."""
    out = []
    if action.input:
        out.append("const struct %s *in" % action.input.c_name)
    if action.output:
        out.append("struct %s *out" % action.output.c_name)
    return out


def arguments(action):
    return (["in"] if action.input else []) + (["out"] if action.output else [])


def handlers(service):
    """NAME_handlers.h of a public API."""
    call = "struct %s_call" % service.name
    lines = ['#include "gen/%s.h"\n\n%s;\n\n' % (service.name, call)]
    for action in in_order(service):
        lines.append("int %s(%s);\n" % (function(service, action),
                                        ", ".join([call + " *call"] + parameters(action))))
    return guarded(service.name + "_handlers", "".join(lines))


def dispatch(service):
    """NAME_dispatch.h of a public API: included by exactly one .c file."""
    lines = ['#include "gen/%s_handlers.h"\n\n' % service.name]
    rows = []
    for action in in_order(service):
        name = snake(action.name)
        lines.append("static int %s_call_%s(void *call, const void *in, void *out)\n{\n"
                     "\treturn %s(%s);\n}\n\n"
                     % (service.name, name, function(service, action),
                        ", ".join(["call"] + arguments(action))))
        rows.append('\t{"%s", %s_call_%s},\n' % (action.name, service.name, name))
    # ISO C has no empty arrays: a service that serves nothing yet has one empty row.
    rows = rows or ["\t{0},\n"]
    lines.append("static const struct {\n\tconst char *action;\n"
                 "\tint (*fn)(void *call, const void *in, void *out);\n"
                 "} %s_dispatch[] = {\n%s};\n" % (service.name, "".join(rows)))
    return guarded(service.name + "_dispatch", "".join(lines))


def rpc(service):
    """NAME_rpc.h of one of our own services: prototypes and the handler table, for one .c file."""
    head = "void *ctx, struct arena *a, const struct tls_identity *peer"
    lines = ['#include "gen/%s.h"\n#include "wire/rpc.h"\n\n' % service.name]
    rows = []
    for action in in_order(service):
        name = function(service, action)
        lines.append("/* %s */\n" % action.documentation.replace("*/", "* /")
                     if action.documentation else "")
        lines.append("int %s(%s);\n\n"
                     % (name, ", ".join([head] + parameters(action) + ["struct error *e"])))
        lines.append("static int %s_thunk(%s, const void *in, void *out, struct error *e)\n{\n"
                     "\treturn %s(%s);\n}\n\n"
                     % (name, head, name,
                        ", ".join(["ctx", "a", "peer"] + arguments(action) + ["e"])))
        rows.append('\t{"%s", %s_thunk},\n' % (action.name, name))
    lines.append("static const struct rpc_handler %s_rpc_handlers[] = {\n%s};\n"
                 % (service.name, "".join(rows)))
    return guarded(service.name + "_rpc", "".join(lines))
