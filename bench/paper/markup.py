# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG out of functions: every text is escaped on its way in, and only what `tag` made passes as it is."""
import html
import re

VOID = {"meta", "br", "rect", "line", "path", "circle"}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")


class Markup(str):
    """Text that is markup already."""


def plain(text):
    """Without what neither a terminal nor XML should be given."""
    return CONTROL.sub("\ufffd", str(text))


def escape(text):
    return text if isinstance(text, Markup) else Markup(html.escape(plain(text), quote=True))


def join(parts, between=""):
    return Markup(between.join(escape(part) for part in parts if part is not None))


def attributes(attrs):
    """class_ is class, stroke_width is stroke-width; None and False leave an attribute out."""
    return "".join(f' {name.rstrip("_").replace("_", "-")}="{html.escape(plain("" if value is True else value), quote=True)}"'
                   for name, value in attrs.items() if value is not None and value is not False)


def tag(name, /, *children, **attrs):
    opening = f"<{name}{attributes(attrs)}"
    if name in VOID and not children:
        return Markup(opening + ("/>" if name not in ("meta", "br") else ">"))
    return Markup(f"{opening}>{join(children)}</{name}>")
