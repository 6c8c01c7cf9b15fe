"""``python -m planner_adapters.cli``."""

from __future__ import annotations

import sys

from planner_adapters.cli import main

sys.exit(main())
