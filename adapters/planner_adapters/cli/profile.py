"""Look at engine performance data: how well it fits, and what one engine of each role carries within an SLA.

PATH is a profile (NPZ, JSON, or a directory with both halves) or recorded forward passes (JSON lines, plain or gzipped,
or a folder of them).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from planner_adapters.cli.terminal import page_file, print_table
from planner_adapters.dynamo.passes import SUFFIXES, load_passes
from planner_adapters.dynamo.profiles import load_profile
from planner_adapters.profile.capacity import RoleCapacity, capacities
from planner_adapters.profile.fits import Fit, fit_passes, fit_profile
from planner_adapters.profile.plot import write_plot
from planner_core import EngineSpec, SlaTargets
from planner_core.maths.sla import RequestShape
from planner_core.perf import Profiled

HELP = "show a profile or recorded passes: fit, errors, capacity within an SLA"

FIT_HEADER = ("", "points", "tokens", "error", "90 %", "left out", "90 %")
CAPACITY_HEADER = ("", "requests/s", "per GPU", "at a time", "ITL, ms", "bound by")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``planner profile``."""
    add = parser.add_argument
    add("path", metavar="PATH", help="profile, file of passes, or folder of either")
    add("--ttft-ms", type=_positive, default=500.0, metavar="MS", help="promised TTFT (default: 500)")
    add("--itl-ms", type=_positive, default=50.0, metavar="MS", help="promised ITL (default: 50)")
    add(
        "--quantile", type=_share, metavar="Q", help="share of requests that must meet it (default: the mean)"
    )
    add("--isl", type=_positive, default=3000.0, metavar="TOKENS", help="mean input (default: 3000)")
    add("--osl", type=_positive, default=150.0, metavar="TOKENS", help="mean output (default: 150)")
    add("--isl-cv2", type=_positive, metavar="X", help="squared coefficient of variation of the input")
    add("--kv-hit-rate", type=_share, default=0.0, metavar="SHARE", help="of the prefix cache (default: 0)")
    add("--accept-length", type=_positive, default=1.0, metavar="N", help="tokens per iteration (default: 1)")
    add("--num-gpus", type=_count, metavar="N", help="of an engine (default: what the profile says, else 1)")
    add("--max-kv-tokens", type=_count, metavar="N", help="of an engine (default: what the profile says)")
    add("--max-num-seqs", type=_count, default=256, metavar="N", help="requests in a pass (default: 256)")
    add("--max-num-batched-tokens", type=_count, default=8192, metavar="N", help="in a pass (default: 8192)")
    add("--json", action="store_true", help="print one JSON object")
    add("--plot", type=page_file, metavar="FILE.html", help="draw points, curves and capacity")


def run(arguments: argparse.Namespace) -> int:
    """Reads, fits and prints."""
    path = Path(arguments.path)
    profile = None if _holds_passes(path) else load_profile(path)
    fits, fitted = fit_passes(load_passes(path)) if profile is None else fit_profile(profile)
    spec = EngineSpec(
        num_gpus=arguments.num_gpus or (profile.num_gpus if profile else None) or 1,
        max_kv_tokens=arguments.max_kv_tokens or (profile.max_kv_tokens if profile else None),
        max_num_seqs=arguments.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
    )
    shape = RequestShape(
        isl=arguments.isl,
        osl=arguments.osl,
        isl_cv2=arguments.isl_cv2,
        kv_hit_rate=arguments.kv_hit_rate,
        accept_length=arguments.accept_length,
    )
    sla = SlaTargets(ttft_ms=arguments.ttft_ms, itl_ms=arguments.itl_ms, quantile=arguments.quantile)
    found = capacities(fitted, spec, shape, sla)
    notes = [*_notes(fits, found, spec, shape, profile)]
    title = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, {shape.isl:g} tokens in, {shape.osl:g} out"
    if arguments.json:
        print(json.dumps(_summary(path, profile, fits, found, spec, notes)))  # noqa: T201
    else:
        holds = "profile" if profile else "recorded passes"
        print_table(f"{path.name}: {holds}", map(_fit_cells, fits), header=FIT_HEADER)
        if found:
            print_table(title, (_capacity_cells(each, spec) for each in found), notes, CAPACITY_HEADER)
        else:
            print("\n".join(f"• {note}" for note in notes))  # noqa: T201
    if arguments.plot:
        write_plot(
            arguments.plot, found, title=f"{path.name}: {title}", sla=sla, profile=profile, fitted=fitted
        )
    return 0


def _holds_passes(path: Path) -> bool:
    files = path.iterdir() if path.is_dir() else [path]
    return any(any(suffix in SUFFIXES for suffix in file.suffixes[-2:]) for file in files)


def _summary(
    path: Path,
    profile: Profiled | None,
    fits: Sequence[Fit],
    found: Sequence[RoleCapacity],
    spec: EngineSpec,
    notes: list[str],
) -> dict[str, Any]:
    return {
        "source": str(path),
        "kind": "profile" if profile else "passes",
        "num_gpus": spec.num_gpus,
        "max_kv_tokens": spec.max_kv_tokens,
        "fit": [attrs.asdict(fit) for fit in fits],
        "capacity": [
            {
                "role": each.role,
                "requests_per_second": each.found.rps,
                "requests_per_second_per_gpu": _per_gpu(each, spec),
                "concurrent_requests": None if each.role == "prefill" else each.found.batch,
                "itl_ms": each.found.itl_ms,
                "bound_by": each.found.binding,
                "unreachable": each.found.unreachable,
                "best_ms": each.found.best_ms,
            }
            for each in found
        ],
        "notes": notes,
    }


def _notes(
    fits: Sequence[Fit],
    found: Sequence[RoleCapacity],
    spec: EngineSpec,
    shape: RequestShape,
    profile: Profiled | None,
) -> list[str]:
    notes = []
    known = {each.role for each in found}
    for fit in fits:
        if fit.num_unusable:
            notes.append(f"{fit.part}: {fit.num_unusable:,} idle or impossible passes were left out")
        if profile is None and fit.part not in known:
            notes.append(f"{fit.part}: {fit.num_points:,} passes are too few for a regression")
    for each in found:
        if each.found.unreachable:
            best = f"{each.found.best_ms:.0f}" if each.found.best_ms is not None else "?"
            notes.append(
                f"{each.role}: the {each.found.unreachable.upper()} can't be met, a lone request takes {best} ms; "
                "the capacity is what the load needs"
            )
    if spec.max_kv_tokens is None and known - {"prefill"}:
        notes.append("the KV capacity isn't known, and bounds nothing here: --max-kv-tokens N")
    if profile is not None and shape.isl > profile.prefill_isl_tokens[-1]:
        notes.append(
            f"{shape.isl:,.0f} tokens in are beyond the profile, which ends at {profile.prefill_isl_tokens[-1]:,.0f}"
        )
    return notes


def _fit_cells(fit: Fit) -> list[str]:
    low, high = fit.range_tokens or (None, None)
    spans = "–" if low is None or high is None else f"{low:,.0f} to {high:,.0f}"
    errors = (fit.error_median, fit.error_p90, fit.left_out_median, fit.left_out_p90)
    return [fit.part, f"{fit.num_points:,}", spans, *("–" if e is None else f"{e:.1%}" for e in errors)]


def _capacity_cells(each: RoleCapacity, spec: EngineSpec) -> list[str]:
    found = each.found
    batch = "–" if each.role == "prefill" else f"{found.batch:,.0f}"
    itl = "–" if found.itl_ms is None else f"{found.itl_ms:.1f}"
    return [each.role, _rate(found.rps), _rate(_per_gpu(each, spec)), batch, itl, found.binding]


def _per_gpu(each: RoleCapacity, spec: EngineSpec) -> float | None:
    return None if each.found.rps is None else each.found.rps / spec.num_gpus


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _positive(text: str) -> float:
    return _number(text, lambda value: 0 < value < float("inf"), "a number above 0")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 <= value < 1, "a share from 0 to less than 1")


def _count(text: str) -> int:
    return int(
        _number(text, lambda value: value >= 1 and value == int(value), "a whole number of at least 1")
    )


def _number(text: str, accepts: Any, want: str) -> float:
    try:
        value = float(text)
        good = accepts(value)
    except (ValueError, OverflowError):
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} must be {want}")
    return value
