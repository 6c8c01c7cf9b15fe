"""What people see: a table on stdout, a progress bar on stderr where somebody is looking, a page in a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from planner_core import MissingExtraError

PIPE_COLUMNS = 120
"""Width of what nobody looks at: a table is not to be folded for a window that isn't there."""


def print_table(
    title: str, rows: Iterable[Sequence[str]], notes: Iterable[str] = (), header: Sequence[str] = ()
) -> None:
    """A table of names and figures, and sentences below it. The columns are named by ``header``, if there is one."""
    with _rich():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    rows = list(rows)
    table = Table(show_header=bool(header))
    for place, name in enumerate(header or rows[0]):
        table.add_column(name, style="bold" if place == 0 else "", justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    with console.capture() as captured:  # rich would end the program where a pipe breaks
        console.print(Text(title, style="bold"))
        console.print(table)
        for note in notes:
            console.print(Text(f"• {note}"))
    sys.stdout.write(captured.get())


@contextmanager
def progress(what: str, total: float, *, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """A bar that the caller moves to an absolute position, if ``shown`` and stderr is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    with _rich():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=min(done, total))


def page_file(text: str) -> Path:
    """An argument that names the file of a page: what can be wrong with it is said before the work, not after it."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: can't be written; name a file in a folder that is there")
    return path


@contextmanager
def _rich() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise MissingExtraError(
            "tables and progress bars need rich: pip install 'planner-core[cli]' (or use --json)"
        ) from None
