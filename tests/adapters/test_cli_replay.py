from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the command line is an extra: pip install 'planner-core[cli]'")
pytest.importorskip("yaml", reason="the command line is an extra: pip install 'planner-core[cli]'")

from planner_adapters.cli import main
from planner_adapters.journal import read_journal
from planner_core import tick
from planner_core.codec import dumps

PROMISED_KEYS = [
    *("requests", "completed", "ttft_attainment", "itl_attainment", "sla_attainment", "ttft_ms", "itl_ms"),
    *("gpu_hours", "scale_ups", "scale_downs", "direction_changes", "peak_replicas", "wall_s", "planner_s"),
]
HEADER = "arrival_s,input_tokens,output_tokens\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Three minutes of ten requests a second."""
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "".join(f"{i / 10},2000,100\n" for i in range(1800)))
    return path


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DYN_NAMESPACE", "PROMETHEUS_ENDPOINT", "PLANNER_PROMETHEUS_PORT"):
        monkeypatch.delenv(variable, raising=False)


# What comes out


def test_json_is_one_object_with_the_promised_keys_first(shown_json: Callable[..., Any], trace: Path) -> None:
    found = shown_json("replay", trace)
    assert list(found)[: len(PROMISED_KEYS)] == PROMISED_KEYS
    assert list(found["ttft_ms"]) == list(found["itl_ms"]) == ["p50", "p95", "p99"]
    assert found["requests"] == found["completed"] == 1800


def test_the_table_has_every_figure_and_no_colours_in_a_pipe(
    capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    assert main(["replay", str(trace)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for words in (
        "SLA attainment",
        "TTFT p50 / p95 / p99",
        "GPU-hours",
        "direction changes",
        "peak replicas",
    ):
        assert words in out


def test_equal_runs_print_equal_figures(shown_json: Callable[..., Any], trace: Path) -> None:
    first, second = (shown_json("replay", trace, "--target", "sla") for _ in range(2))
    for key in ("wall_s", "planner_s"):
        del first[key], second[key]
    assert first == second


@pytest.mark.nightly
def test_the_working_day_is_replayed_without_a_trace(shown_json: Callable[..., Any]) -> None:
    found = shown_json("replay", "--target", "sla")
    assert found["requests"] == found["completed"] > 150_000
    assert found["scale_ups"] > 0


@pytest.mark.parametrize("trace_name", ["azure23_conv", "azure23_code"])
def test_real_traces_are_replayed(shown_json: Callable[..., Any], shared_data: Path, trace_name: str) -> None:
    found = shown_json("replay", shared_data / "traces" / f"{trace_name}.csv.gz", "--target", "sla")
    assert found["completed"] == found["requests"] in (19_366, 8_819)


# What goes in


def test_flags_reach_the_planner(shown_json: Callable[..., Any], trace: Path, tmp_path: Path) -> None:
    flags = (
        "--mode agg --target sla --ttft-ms 300 --itl-ms 20 --max-gpus 3 --startup-s 7 --set load_step=unit"
    )
    shown_json("replay", trace, *flags.split(), "--journal", tmp_path / "journal")
    inputs, _ = next(read_journal(tmp_path / "journal"))
    config = inputs.config
    assert (config.mode, config.target, config.limits.max_gpus) == ("agg", "sla", 3)
    assert (config.sla.ttft_ms, config.sla.itl_ms) == (300, 20)
    assert config.load is not None
    assert config.load.step == "unit"
    (engine,) = config.engines.values()
    assert engine.startup_s == 7


def test_the_planner_is_told_what_the_simulated_engine_holds(
    shown_json: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    shown_json("replay", trace, "--engine", "llama-3.1-70b-fp8-b200", "--journal", tmp_path / "journal")
    inputs, _ = next(read_journal(tmp_path / "journal"))
    for engine in inputs.config.engines.values():
        assert (engine.num_gpus, engine.max_kv_tokens, engine.max_num_batched_tokens) == (2, 1_544_000, 8192)
        assert (engine.max_num_seqs, engine.context_length) == (256, 131_072)


def test_what_the_user_says_of_an_engine_is_simulated_too(
    shown_json: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    """Prompts of 2 000 tokens find no room in an engine of 1 000."""
    (tmp_path / "planner.yaml").write_text("mode: agg\nengines:\n  agg: {max_kv_tokens: 1000}\n")
    found = shown_json("replay", trace, "--config", tmp_path / "planner.yaml")
    assert found["rejected"] == found["requests"]
    assert any("longer than" in note for note in found["notes"])


def test_keys_of_prefill_and_decode_hold_for_an_aggregated_engine(
    shown_json: Callable[..., Any], trace: Path
) -> None:
    one = shown_json("replay", trace, "--mode", "agg")
    two = shown_json("replay", trace, "--mode", "agg", "--set", "prefill_engine_num_gpu=2")
    assert two["gpu_hours"] == pytest.approx(2 * one["gpu_hours"])


def test_with_the_target_sla_both_loops_are_on_unless_something_is_said(
    shown_json: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    def loops(*arguments: str) -> tuple[bool, bool]:
        journal = tmp_path / f"journal {' '.join(arguments)}".replace("/", "_")
        shown_json("replay", trace, *arguments, "--journal", journal)
        config = next(read_journal(journal))[0].config
        return config.load_loop is not None, config.throughput_loop is not None

    (tmp_path / "planner.yaml").write_text("optimization_target: sla\n")
    assert loops("--target", "sla") == (True, True)
    assert loops("--target", "sla", "--set", "enable_load_scaling=false") == (False, True)
    assert loops("--config", str(tmp_path / "planner.yaml")) == (False, True)
    assert loops("--target", "latency") == (True, False)


@pytest.mark.parametrize(
    ("replicas", "peak"),
    [("3", {"prefill": 3, "decode": 3}), ("prefill=2,decode=4", {"prefill": 2, "decode": 4})],
)
def test_replicas_run_from_the_start(
    shown_json: Callable[..., Any], trace: Path, replicas: str, peak: dict[str, int]
) -> None:
    found = shown_json("replay", trace, "--replicas", replicas)
    assert found["peak_replicas_by_role"] == peak
    assert found["peak_replicas"] == sum(peak.values())


def test_a_profile_gives_the_engine_its_timing(
    shown_json: Callable[..., Any], shared_data: Path, trace: Path
) -> None:
    fast, slow = (
        shown_json(
            "replay", trace, "--profile", shared_data / "profiles" / f"aic_Llama-3.1-8B_{gpu}_vllm_tp1.npz"
        )
        for gpu in ("h100_sxm", "a100_sxm")
    )
    assert fast["ttft_ms"]["p50"] < slow["ttft_ms"]["p50"]


def test_a_trace_that_the_budget_starves_is_said_to_be(
    shown_json: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "flood.csv").write_text(HEADER + "".join(f"{i / 60},8000,10\n" for i in range(3600)))
    starved = shown_json("replay", tmp_path / "flood.csv", "--target", "latency", "--max-gpus", 2)
    assert any("the budget of 2 GPUs bound" in note for note in starved["notes"])
    free = shown_json("replay", tmp_path / "flood.csv", "--target", "latency", "--max-gpus", -1)
    assert free["notes"] == []


def test_a_journal_replays_to_the_same_decisions(
    shown_json: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    found = shown_json("replay", trace, "--target", "sla", "--journal", tmp_path / "journal")
    made = list(read_journal(tmp_path / "journal"))
    assert len(made) == found["ticks"]
    for inputs, decision in made:
        assert dumps(tick(inputs)) == dumps(decision)


# What is refused


def test_a_bad_trace_gets_one_line_with_file_row_and_mend(
    refused: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(HEADER + "0,100,10\n1,-5,10\n")
    line = refused("replay", path)
    assert f"{path}, row 3: input_tokens = -5 must be at least 1; drop the request" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: can't be read"),
        (["--set", "load_predicter=arima"], "did you mean load_predictor?"),
        (["--set", "load_predictor"], "no KEY=VALUE"),
        (["--profile", "nowhere.npz"], "nowhere.npz: no such file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: can't be read"),
        (["--journal", "no/such/folder/journal"], "no/such/folder/journal"),
        (["--ttft-ms", "-5"], "ttft_ms = -5"),
        (["--ttft-ms", "soon"], "--ttft-ms"),
        (["--mode", "both"], "--mode"),
        (["--startup-s", "-1"], "startup_s = -1"),
        (["--startup-s", "nan"], "startup_s = nan"),
        (["--replicas", "some"], "write 2, or prefill=2,decode=4"),
        (["--replicas", "-1"], "--replicas"),
        (["--replicas", "agg=2"], "mode = 'disagg' has prefill and decode alone"),
        (["--max-gpus", "1"], "need 2 GPUs"),
        (["--set", "engines.prefill.max_num_batched_tokens=10"], "max_num_batched_tokens"),
        (["--profile", "a", "--engine", "llama-3.1-70b-fp8-h100"], "not allowed with"),
    ],
)
def test_a_bad_flag_gets_one_line(
    refused: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    trace: Path,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments if arguments[0].endswith(".csv") else [str(trace), *arguments]
    assert words in refused("replay", *given)


def test_every_problem_of_a_configuration_gets_its_line(
    capsys: pytest.CaptureFixture[str], trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "planner.yaml").write_text("ttft: -1\nitl: 0\n")
    assert main(["replay", str(trace), "--config", str(tmp_path / "planner.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].rpartition("/")[2] for line in lines] == ["planner.yaml:1", "planner.yaml:2"]


def test_a_command_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# As a process


def planner(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "planner_adapters.cli", *map(str, arguments)]


def test_without_rich_the_table_names_the_pip_command_and_json_still_works(trace: Path) -> None:
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "from planner_adapters.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-P", "-c", code, "replay", str(trace)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "pip install 'planner-core[cli]'" in run.stderr
    assert subprocess.run([*command, "--json"], capture_output=True).returncode == 0


def test_a_reader_that_leaves_early_is_no_fault(trace: Path) -> None:
    run = subprocess.Popen(planner("replay", trace), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    errors = run.stderr.read()
    run.stderr.close()
    assert (run.wait(), errors) == (141, b"")


def test_control_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    run = subprocess.Popen(
        planner("replay", "--journal", journal), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (journal.exists() and journal.stat().st_size):
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate()
    assert (run.returncode, out, errors) == (130, b"", b"planner: interrupted\n")
    assert list(read_journal(journal))


# The progress bar shows on a terminal alone, and Windows has no `pty` to make one of.
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("flag", "seen"), [("--seed=0", True), ("--json", False)])
def test_a_progress_bar_is_shown_to_people_only(trace: Path, flag: str, seen: bool) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        environment = os.environ | {"TERM": "xterm"}
        run = subprocess.run(
            planner("replay", trace, flag), stdout=subprocess.PIPE, stderr=theirs, env=environment
        )
        os.set_blocking(ours, False)
        drawn = terminal.read(100_000) or b""
        os.close(theirs)
    assert run.returncode == 0
    assert (b"replay trace" in drawn) is seen
