# SPDX-License-Identifier: Apache-2.0
"""Where, when and with what a result was measured, and what there is to say against it."""

STEAL_PERCENT = 1.0     # of the processor taken by other virtual machines: more is said
OTHERS_CORES = 0.3      # kept busy by others meanwhile: more is said


def host_text(host):
    host = host or {}
    cores = host.get("cores")
    parts = [f"{cores} × {host.get('cpu') or 'CPU'}" if cores else host.get("cpu")]
    if host.get("memory_mb"):
        parts.append(f"{host['memory_mb'] / 1024:.0f} GiB")
    if host.get("kernel"):
        parts.append(host["kernel"] if str(host["kernel"]).startswith("Linux") else f"Linux {host['kernel']}")
    if host.get("accel"):
        parts.append(f"guests under {str(host['accel']).upper()}")
    return ", ".join(str(part) for part in parts if part)


def flat(things, before=""):
    """{"net": {"seconds": 5}} as [("net seconds", "5")]."""
    lines = []
    for name, value in (things or {}).items():
        name = f"{before}{str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            lines += flat(value, name + " ")
        elif isinstance(value, list):
            lines.append((name, ", ".join(map(str, value))))
        elif value is not None:
            lines.append((name, {True: "yes", False: "no"}[value] if isinstance(value, bool) else
                          f"{value:g}" if isinstance(value, float) else str(value)))
    return lines


def versions_text(result):
    return ", ".join(f"{name} {value}" for name, value in flat(result.get("versions")))


def settings_text(result):
    return ", ".join(f"{name} {value}" for name, value in flat(result.get("settings")))


def summary_of(result):
    return "; ".join(part for part in (result.get("date"), host_text(result.get("host")), versions_text(result)) if part)


def number(things, name):
    value = (things or {}).get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def notes_of(result):
    """What a reader has to know before believing a figure."""
    foreign, notes = result.get("foreign"), []
    if number(foreign, "steal_percent") > STEAL_PERCENT:
        notes.append(f"{foreign['steal_percent']:.1f} % of the processor was taken away by other virtual machines.")
    if number(foreign, "others_cores") > OTHERS_CORES:
        notes.append(f"Other programs kept {foreign['others_cores']:.1f} cores busy meanwhile: trust ratios, not rates.")
    if str((result.get("host") or {}).get("accel", "")).lower() == "tcg":
        notes.append("Guests ran under emulation (TCG): their processor is many times slower than the host's. Rows whose guest was at its "
                     "processor's limit say so.")
    wide = sum(1 for row in result["rows"] if row.get("unreliable"))
    if wide:
        notes.append(f"{wide} of {len(result['rows'])} rows are unreliable and marked.")
    return notes
