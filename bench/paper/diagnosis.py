# SPDX-License-Identifier: Apache-2.0
"""What holds rows back and what would mend it, as lines to read. The findings themselves are `mallee bench explain`'s."""
from paper.columns import figure, vmm_text
from paper.result import is_empty, is_net, main_figure

UNITS = {"mb_s": "MB/s", "iops": "IOPS", "mbit_s": "Mb/s", "transactions_s": "transactions/s"}


def gain_text(gain, row):
    """What mending would give. A number is the rate by which the row's own would be multiplied."""
    if gain is None:
        return ""
    if isinstance(gain, str):
        return gain
    if isinstance(gain, bool) or not isinstance(gain, (int, float)) or gain <= 1:
        return ""
    name, value = main_figure(row)
    return f"up to {figure(gain)} times, {figure(value * gain)} {UNITS[name]}"


def sentence(text):
    text = (text or "").strip()
    return text if not text or text.endswith((".", "!", "?")) else text + "."


def finding_text(held, row):
    """One finding: why, what would mend it, what that would give."""
    gain, mend = gain_text(held.get("gain"), row), (held.get("mend") or "").strip()
    parts = [sentence(held.get("why") or held["rule"])]
    if mend:
        parts.append(f"{mend.rstrip('.')}: {gain}." if gain else sentence(mend))
    return " ".join(parts)


def findings_of(rows):
    """[(row, [(rule, text)])] of rows that something holds back; whatever the rule `none` says is no finding."""
    found = []
    for row in rows:
        held = [(h["rule"], finding_text(h, row)) for h in row.get("held_back_by") or [] if h["rule"] != "none"]
        if held and not is_empty(row):
            found.append((row, held))
    return found


def short_name(row):
    """A row's name within its own table, of what is known of it."""
    if is_net(row):
        card = "the host itself" if row["configuration"] == "none" else row.get("driver") or row["configuration"]
        return f"{card} to {row.get('target') or 'the host'}"
    if row["configuration"] in ("none", "net-none"):
        return f"the host itself, {row.get('target') or 'disk'}"
    parts = [vmm_text(row["vmm"]) if row.get("vmm") else None, row.get("target"), row.get("driver")]
    return " ".join(part for part in parts if part) or row["configuration"]
