"""docs/tollway.service under systemd's own checks, and its settings against the gateway."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from engine import ROOT, skip

UNIT = ROOT / "docs/tollway.service"
PROGRAM = "/usr/local/bin/tollway"
# Of 100; systemd itself takes less than 50 for OK. It cannot be less than what a server needs.
THRESHOLD = 15


def seconds(text):
    units = {"s": 1, "min": 60}
    return sum(int(n) * units[u] for n, u in re.findall(r"(\d+)(min|s)", text))


def main():
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        skip("there is no systemd-analyze")
    unit = UNIT.read_text()
    tollway = os.environ["TW_TOLLWAY"]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        # The program and the manual are where they are here.
        copy = place / "tollway.service"
        copy.write_text(unit.replace(PROGRAM, tollway))
        done = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True)
        about_us = [line for line in done.stderr.splitlines() if "tollway" in line]
        assert done.returncode == 0 and not about_us, done.stderr
        command = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={THRESHOLD}", copy]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        print(re.search(r"Overall exposure level.*", done.stdout).group(0))

        env = dict(line.removeprefix("Environment=").split("=", 1) for line in unit.splitlines() if line.startswith("Environment="))
        (place / "master-key").write_text("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=\n")
        given = {name: value.replace("%d/", f"{place}/") for name, value in env.items()}
        done = subprocess.run([tollway, "config", "check"], env={"PATH": os.environ["PATH"], **given}, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    credential = re.search(r"^LoadCredential=([\w-]+):", unit, re.M).group(1)
    assert env["TOLLWAY_MASTER_KEY_FILE"] == f"%d/{credential}"
    stop = seconds(re.search(r"^TimeoutStopSec=(.*)$", unit, re.M).group(1))
    drain = seconds(env["TOLLWAY_SERVER__DRAIN_GRACE"])
    assert stop >= drain + 25, f"systemd kills after {stop} s, and the drain may take {drain} s and 25 for the last writes"
    subprocess.run(["sh", "-n", ROOT / "docs/deploy/tollway-admin"], check=True)
    print("all checks passed")


if __name__ == "__main__":
    main()
