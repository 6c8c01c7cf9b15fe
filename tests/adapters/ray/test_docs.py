from __future__ import annotations

import doctest
from pathlib import Path

import pytest

# Half a gigabyte, so it isn't in the session `tests`, but in `ray`.
pytest.importorskip("ray.serve", reason="needs the extra ray")


def test_what_the_page_shows_of_ray_runs_too(project_root: Path) -> None:
    """Elsewhere the blocks that need Ray are skipped."""
    page = (project_root / "docs/how-to/run_with_ray.md").read_text().replace("# doctest: +SKIP", "")
    runner = doctest.DocTestRunner()
    assert runner.run(doctest.DocTestParser().get_doctest(page, {}, "run_with_ray.md", None, 0)).failed == 0
