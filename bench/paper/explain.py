# SPDX-License-Identifier: Apache-2.0
"""The model's figures and what holds rows back, which `mallee bench explain` adds to a result."""
import json
import subprocess


def explained(result, build, say):
    """The result with them, or as it was: it is worth keeping without."""
    program = build / "mallee"
    try:
        done = subprocess.run([program, "bench", "explain"], input=json.dumps(result), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            return json.loads(done.stdout)
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    say(f"the rows are not explained: {program} bench explain: {reason}")
    return result
