"""A small share of ``scripts/fuzz.py``; docs/reliability.md has the counts of all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc")
def test_a_share_of_the_attacks_does_no_harm(tmp_path: Path) -> None:
    """Breaks if a stranger's run executes or writes elsewhere, or a damaged file is a traceback.

    And if the script that is to find such can no longer be run.
    """
    counts = tmp_path / "counts.json"
    shares = ("--share", "0.002", "--minutes", "0.2", "--seed", "7", "--out", str(counts))
    process = subprocess.run(
        [sys.executable, str(SCRIPT), *shares],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    found = json.loads(counts.read_text())
    for kind in ("configs", "files", "overrides", "special"):
        assert found[kind]["counts"]["tried"] > 0, kind
        assert found[kind]["failures"] == []
