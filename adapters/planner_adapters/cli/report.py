"""Draw a journal: replicas, latencies, traffic and decisions, as one HTML file that opens offline."""

from __future__ import annotations

import argparse

from planner_adapters.cli.terminal import page_file, progress
from planner_adapters.journal import JournalError
from planner_adapters.report import SeriesBuilder, skim_journal, write_report

HELP = "look at a run: a journal as a page of charts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner report``."""
    add = parser.add_argument
    add("journal", metavar="JOURNAL", help="as written by planner run or replay with --journal")
    add(
        "-o",
        "--output",
        type=page_file,
        metavar="FILE",
        default="report.html",
        help="the page (default: %(default)s)",
    )
    add("--title", default="Planner report", help="its heading (default: %(default)s)")
    add(
        "--from",
        dest="from_s",
        type=float,
        metavar="TIME",
        help="leave out what is earlier, in seconds of the journal",
    )
    add("--to", dest="to_s", type=float, metavar="TIME", help="leave out what is later")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page."""
    from_s, to_s = (float(t) if t is not None else None for t in (arguments.from_s, arguments.to_s))
    builder, read = SeriesBuilder(), 0
    with progress(f"read {arguments.journal}", 1.0) as show:
        for inputs, decision in skim_journal(arguments.journal, done=show):
            read += 1
            if (from_s is None or inputs.now_s >= from_s) and (to_s is None or inputs.now_s <= to_s):
                builder.add(inputs, decision)
    if builder.last is None:
        raise JournalError(
            f"{arguments.journal}: has no tick{f' in that time; it holds {read:,}' if read else ''}"
        )
    write_report(arguments.output, builder.series(), title=arguments.title)
    size = arguments.output.stat().st_size
    ticks = builder.totals()["ticks"]
    print(f"{arguments.output}: {ticks:,.0f} ticks, {size / 1e6:.1f} MB")  # noqa: T201
    return 0
