"""The closed loop: planner, baselines and oracle on every trace, engine, start and simulator; the original beside them.

    python benchmarks/closed_loop.py --quick                      five traces, 12 minutes each, everybody as usual
    python benchmarks/closed_loop.py                              the whole table: a day of computing
    python benchmarks/closed_loop.py --simulators built-in,mocker --original ../original/bin/python

Each run becomes a line of ``--out``; what stands there is not run again, so a sweep can be broken off and go on, and
several may write to files of their own. ``--table`` prints what is there. The mocker needs ``pip install
'planner-core[mocker]'``; ``--original`` names the Python of an environment with ``ai-dynamo`` 1.1.1 (installed with
``--no-deps`` beside ``ai-dynamo-runtime`` 1.6.1 and what it imports), whose planner is then asked as a black box.

On the mocker run the planner, every baseline as usual and those of its front, and the original; the fronts and the
oracle are found on our simulator with the mocker's arithmetic, which it agrees with (``simulators_agree.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import _original
import attrs
from _cells import DATA, Cell, cells
from _table import markdown, plot

from planner_adapters.compare import FAMILIES, Candidate, Case, candidates
from planner_adapters.compare.outcome import outcome_of
from planner_adapters.compare.policies import ORACLE, PLANNER
from planner_adapters.compare.sweep import first_fleet, run_all
from planner_adapters.dynamo.mocker import replay_on_mocker, runtime
from planner_adapters.simulation.oracle import Survey, find_oracle, lower_bound, num_windows, survey
from planner_adapters.simulation.replay import replay

ROOT = Path(__file__).parents[1]
CHUNK = 40


class Ledger:
    """The lines of the file: one per run, with its cell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut off

    def add(self, row: dict[str, Any]) -> None:
        """Appends and remembers one."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, cell: Cell) -> list[dict[str, Any]]:
        """What was run of a cell."""
        return [row for row in self.rows if row["cell"] == attrs.asdict(cell)]


@attrs.frozen(kw_only=True, eq=False)
class Job:
    """One run, to be sent to a process."""

    case: Case
    candidate: Candidate
    play: str
    survey: Survey | None = None


def run_job(job: Job) -> dict[str, Any]:
    """Its row."""
    case, candidate = job.case, job.candidate
    if job.survey is not None:
        share = candidate.params["attainment"]
        oracle = find_oracle(case.workload, case.config, case.roles, job.survey, attainment=share)
        least = lower_bound(case.workload, case.config, case.roles, attainment=share)
        more = {
            "lower_bound_gpu_hours": least if math.isfinite(least) else None,
            "reached": oracle.reached,
            "trials": oracle.trials,
        }
        return outcome_of(case.name, candidate, oracle.result, **more).row()
    started, policy = candidate.start(case)
    play: Callable[..., Any] = replay_on_mocker if job.play == "mocker" else replay
    result = play(started.workload, started.config, started.roles, policy=policy)
    return outcome_of(case.name, candidate, result).row()


@attrs.frozen(kw_only=True, eq=False)
class Windows:
    """Some windows of a case, to be surveyed in another process."""

    case: Case
    windows: range


def look(job: Windows) -> Survey:
    """The survey of these windows."""
    case = job.case
    return survey(case.workload, case.roles, case.config.sla, window_s=case.window_s, windows=job.windows)


def surveyed(case: Case, executor: Executor) -> Survey:
    """All windows."""
    number = num_windows(case.workload, case.window_s)
    jobs = [
        Windows(case=case, windows=range(first, min(first + CHUNK, number)))
        for first in range(0, number, CHUNK)
    ]
    first, *others = run_all(executor, look, jobs)
    for part in others:
        first = first + part
    return first


def key(policy: str, params: Mapping[str, Any], played_on: str) -> str:
    """What tells the runs of a cell from each other."""
    return json.dumps([policy, params, played_on], sort_keys=True)


def run_cell(cell: Cell, arguments: argparse.Namespace, ledger: Ledger, executor: Executor) -> None:
    """All runs of a cell that the ledger doesn't have."""
    case = cell.case(arguments.data)
    done = {key(row["policy"], row["params"], row["played_on"]) for row in ledger.of(cell)}
    if not ({"finished"} <= {row["policy"] for row in ledger.of(cell)}):
        seen = surveyed(case, executor)
        case = case.starting_with(first_fleet(case, seen))
        fleet = {str(role): spec.replicas for role, spec in case.roles.items()}
        named = {"cell": attrs.asdict(cell), "requests": len(case.workload), "fleet": fleet}

        def run(jobs: Sequence[Job]) -> None:
            jobs = [j for j in jobs if key(j.candidate.policy, j.candidate.params, j.play) not in done]
            for start in range(0, len(jobs), 2 * arguments.workers):
                some = jobs[start : start + 2 * arguments.workers]
                for job, row in zip(some, run_all(executor, run_job, some), strict=True):
                    ledger.add(named | {"played_on": job.play} | row)

        wanted = candidates(case, seen, (*FAMILIES, ORACLE))
        wanted = [c for c in wanted if not arguments.quick or is_quick(c)]
        run(
            [
                Job(
                    case=case,
                    candidate=c,
                    play="built-in",
                    survey=seen if c.policy == ORACLE else None,
                )
                for c in wanted
            ]
        )
        if cell.simulator == "mocker":
            run([Job(case=case, candidate=c, play="mocker") for c in worth_it(wanted, ledger.of(cell))])
        ledger.add(named | {"policy": "finished", "params": {}, "played_on": "built-in"})
    if arguments.original is not None:
        run_original(cell, arguments, ledger, done)


def is_quick(candidate: Candidate) -> bool:
    """In a hurry, everybody plays as usual, and fixed fleets of every size."""
    return candidate.is_default or candidate.policy == "static"


def worth_it(wanted: Sequence[Candidate], rows: Sequence[Mapping[str, Any]]) -> Iterator[Candidate]:
    """The planner, the others' usual parameters, and each family's front on our simulator."""
    figures = {key(row["policy"], row["params"], ""): row for row in rows if row["played_on"] == "built-in"}
    for policy in FAMILIES:
        family = [c for c in wanted if c.policy == policy]
        reached = {id(c): figures[key(policy, c.params, "")] for c in family}
        by_cost = sorted(
            family, key=lambda c: (reached[id(c)]["gpu_hours"], -reached[id(c)]["sla_attainment"])
        )
        best = -1.0
        for candidate in by_cost:
            attainment = reached[id(candidate)]["sla_attainment"]
            if candidate.is_default or policy == PLANNER or attainment > best:
                yield candidate
            best = max(best, attainment)


def run_original(cell: Cell, arguments: argparse.Namespace, ledger: Ledger, done: set[str]) -> None:
    """Each configuration of the original in its own environment, from the same fleet."""
    known = ledger.of(cell)[0]
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), str(ROOT / "benchmarks")])
    for params in _original.QUICK_CONFIGS if arguments.quick else _original.CONFIGS:
        if key("original", params, cell.simulator) in done:
            continue
        job = {"cell": attrs.asdict(cell), "fleet": known["fleet"], "params": params}
        ran = subprocess.run(
            [arguments.original, str(ROOT / "benchmarks" / "_original.py"), str(arguments.data)],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "DYNAMO_SKIP_PYTHON_LOG_INIT": "1", "DYN_LOG": "error"},
        )
        if ran.returncode:
            print(f"original {params} failed: {ran.stderr.strip()[-600:]}", file=sys.stderr)
            continue
        row = json.loads(ran.stdout.splitlines()[-1])
        named = {name: known[name] for name in ("cell", "requests", "fleet")}
        ledger.add(named | {"played_on": cell.simulator} | row)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="five traces of 12 minutes, one engine, one startup time, no grids",
    )
    add(
        "--simulators", default="built-in", help="built-in, mocker, or both, by commas (default: %(default)s)"
    )
    add("--original", metavar="PYTHON", help="of an environment with ai-dynamo 1.1.1")
    add("--data", type=Path, default=DATA, help="folder with traces/ and profiles/")
    add("--out", type=Path, default=Path("closed_loop.jsonl"), help="one line per run (default: %(default)s)")
    add(
        "--only", default="", metavar="TEXT", help="cells whose description has it, as disagg or azure23_code"
    )
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)")
    add("--table", action="store_true", help="run nothing, print what is there")
    add("--plot", type=Path, metavar="FILE", help="draw the fronts as PNG; needs matplotlib")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.out)
    if not arguments.table:
        simulators = tuple(arguments.simulators.split(","))
        if "mocker" in simulators:
            runtime()
        with ProcessPoolExecutor(arguments.workers) as executor:
            for cell in cells(quick=arguments.quick, simulators=simulators):
                if arguments.only in " ".join(map(str, attrs.astuple(cell))):
                    print(cell, file=sys.stderr)
                    run_cell(cell, arguments, ledger, executor)
    print(markdown(ledger.rows))
    if arguments.plot:
        plot(ledger.rows, arguments.plot)


if __name__ == "__main__":
    main()
