from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


# The test forks and kills processes without their notice, and Windows can do neither.
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL, so a Unix")
def test_a_process_killed_anywhere_in_sqlite_loses_and_doubles_no_decision(tmp_path: Path) -> None:
    program = Path(__file__).with_name("killed_writers.py")
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "decisions.db"), "60", "7"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["killed"] == 60
    assert result["decisions"] > 60, "they were killed before they did anything"
