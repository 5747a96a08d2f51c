# SPDX-License-Identifier: Apache-2.0
"""The study's Figures 2, 3 and 4, drawn from a result: which rows go into which chart. None where a result has nothing for one."""
from paper.columns import figure, vmm_text
from paper.result import is_empty, main_figure, rows_of
from paper.svg import Bar, Chart, Line, Section

# The overview's lines: what comes out of the box, here and there, the stock drivers, and ours.
OVERVIEW = {
    "local disk": [("file-scsi", "KVM's default: SCSI, sparse file"), ("xen-file-scsi", "Xen's default"), ("ec2-instance", "EC2, instance storage"),
                   ("disk-scsi-phy", "SCSI on the whole disk"), ("disk-virtio-phy", "virtio on the whole disk"), ("mallee", "Mallee")],
    "network disk": [("net-none", "the host itself"), ("net-scsi-phy", "KVM's default: SCSI"), ("xen-net-scsi-phy", "Xen's default"), ("ec2-ebs", "EC2, EBS"),
                     ("net-virtio-phy", "virtio"), ("net-guest", "the guest's own driver"), ("net-mallee", "Mallee")],
}


def by_configuration(rows):
    return {row["configuration"]: row for row in rows}


def percent(value, native):
    return value / native * 100 if value is not None and native else None


def share_bar(value, row, who):
    if value is None:
        return Bar(None, "here: not measured" if who == "here" else "")
    mark = "?" if who == "here" and row.get("unreliable") else ""
    return Bar(value, f"{mark}{value:.0f} %" if value >= 10 else f"{mark}{value:.1f} %")


def overview_section(result, target, workload, what):
    rows = by_configuration(rows_of(result, workload))
    native = rows.get("none") or {}
    lines = []
    for configuration, label in OVERVIEW[target]:
        row = rows.get(configuration)
        if row is None:
            continue
        here = percent(row.get("mb_s"), native.get("mb_s"))
        then = percent((row.get("study") or {}).get("mb_s"), (native.get("study") or {}).get("mb_s"))
        if here is None and then is None:
            continue
        lines.append(Line(label, [share_bar(here, row, "here"), share_bar(then, row, "study")]))
    return Section(f"{target}, {what}", lines) if lines else None


def overview(result):
    """Figure 2: guests as a share of the host's own local disk."""
    sections = [overview_section(result, target, workload, what) for target in OVERVIEW
                for workload, what in (("dd-write", "writing"), ("dd-read", "reading"))]
    sections = [section for section in sections if section]
    if not sections:
        return None
    return Chart("overview", "What guests get of the disk, in percent of the host's own rate on its local disk",
                 "Bars for each way to a disk: measured here, and in the study. " + spoken(sections, ("here", "study")), "%",
                 ["measured here", "the study"], sections, 100)


def spoken(sections, series):
    """The chart in words."""
    lines = []
    for section in sections:
        for line in section.lines:
            told = ", ".join(f"{name} {bar.text}" for name, bar in zip(series, line.bars) if bar.value is not None)
            lines.append(f"{section.heading}, {line.label}: {told}" if section.heading else f"{line.label}: {told}")
    return ". ".join(lines) + "."


def rate_bar(row, series):
    if row is None or is_empty(row):
        return Bar(None, f"{series}: not measured")
    value = main_figure(row)[1]
    return Bar(value, f"{'?' if row.get('unreliable') else ''}{figure(value)}")


def label_of(row):
    vmm, driver = vmm_text(row["vmm"]) if row.get("vmm") else "", row.get("driver")
    if row["configuration"] in ("none", "net-none"):
        return "the host itself"
    if row["configuration"] in ("mallee", "net-mallee"):
        return "Mallee"
    if row["configuration"] == "net-guest":
        return "the guest's own driver"
    return f"{vmm} {driver}".strip() if driver else row["configuration"]


def pair_lines(first, second, key, names):
    """Lines of rows that either workload has figures of, in the order of the rows."""
    ours, theirs = ({key(row): row for row in rows} for rows in (first, second))
    lines = []
    for name in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(name), theirs.get(name)
        if any(row is not None and not is_empty(row) for row in (a, b)):
            lines.append((name, Line(label_of(a or b), [rate_bar(a, names[0]), rate_bar(b, names[1])])))
    return lines


def streaming(result):
    """Figure 3: the streaming writer and reader."""
    lines = pair_lines(rows_of(result, "stream-write"), rows_of(result, "stream-read"), lambda row: row["configuration"], ("writer", "reader"))
    local = [line for name, line in lines if not is_network_disk(name)]
    remote = [line for name, line in lines if is_network_disk(name)]
    sections = [Section(heading, some) for heading, some in (("local disk", local), ("network disk", remote)) if some]
    if not sections:
        return None
    return Chart("streaming", "Streaming writer and reader, MB/s by configuration",
                 "Bars for writer and reader. " + spoken(sections, ("writer", "reader")), "MB/s", ["writer", "reader"], sections, None)


def is_network_disk(configuration):
    return configuration.startswith(("net-", "xen-net-")) or configuration == "ec2-ebs"


def best_of(lines):
    return max((bar.value for line in lines for bar in line.bars if bar.value is not None), default=0)


def network_section(target, lines):
    """Where no wire is the limit the host itself is so fast that guests' bars would be stumps beside its own: it is told in words then."""
    guests = [line for configuration, line in lines if configuration != "none"]
    native = [line for configuration, line in lines if configuration == "none"]
    heading = f"with {PEERS.get(target, target or 'the host')}"
    if guests and best_of(native) > 3 * best_of(guests) > 0:
        return Section(f"{heading} (the host itself: {' and '.join(bar.text for line in native for bar in line.bars)} Mb/s)", guests)
    return Section(heading, native + guests)


def network(result):
    """Figure 4: TCP by network card, both directions, to the guest's own host and to another."""
    to, out = rows_of(result, "tcp-to-guest"), rows_of(result, "tcp-from-guest")
    lines = pair_lines(to, out, lambda row: (row.get("target"), row["configuration"]), ("to the guest", "from the guest"))
    targets = dict.fromkeys(target for (target, _), _ in lines)
    sections = [network_section(wanted, [(name, line) for (target, name), line in lines if target == wanted]) for wanted in targets]
    if not sections:
        return None
    return Chart("network", "TCP by network card, Mb/s", "Bars for both directions. " + spoken(sections, ("to the guest", "from the guest")), "Mb/s",
                 ["to the guest (receive)", "from the guest (transmit)"], sections, None)


PEERS = {"host": "its own host", "peer": "another host"}

FIGURES = [
    ("Figure 2", overview, "The study found that out of the box KVM's guests lost 98 % (local file) and 83 % (EBS) of the disk when writing, 38 % "
     "and 54 % when reading, against the host's own local disk."),
    ("Figure 3", streaming, "The study's Hadoop got about 60 % of the host's rate with either of KVM's drivers on a local disk, and less on EBS."),
    ("Figure 4", network, "The study's guests reached no more than 700 Mb/s to their driver domain; over the gigabit link 71 % of it "
     "(transmit) and 45 % (receive) out of the box. The wire itself carried 940 Mb/s."),
]
