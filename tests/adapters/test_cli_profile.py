from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich", reason="the command line is an extra: pip install 'planner-core[cli]'")

from planner_adapters.cli import main
from planner_adapters.dynamo.passes import load_passes
from planner_core import Role

PREFILL = {
    "prefill_isl": [128, 512, 1024, 4096, 16384],
    "prefill_ttft": [12.0, 18.0, 25.0, 90.0, 440.0],
    "prefill_thpt_per_gpu": [5333.3, 14222.2, 20480.0, 22755.6, 18618.2],
}
DECODE = {
    "x_kv_usage": [0.001, 0.064, 0.512, 0.004, 0.128, 0.512],
    "y_context_length": [1000.0, 1000.0, 1000.0, 4000.0, 4000.0, 4000.0],
    "z_itl": [6.0, 10.0, 40.0, 6.2, 11.0, 27.0],
    "max_kv_tokens": [1_000_000],
}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(PREFILL | DECODE))
    return path


def decode_passes(num: int = 200) -> Iterator[dict[str, Any]]:
    """8 ms, 0.1 ms per request and 0.1 µs per KV token."""
    dice = np.random.default_rng(0)
    for _ in range(num):
        requests, context = int(dice.integers(1, 200)), int(dice.integers(500, 4000))
        time_s = 0.008 + 1e-4 * requests + 1e-7 * requests * context
        yield {
            "worker_id": "w0",
            "wall_time_s": time_s,
            "num_decode": requests,
            "decode_kv_tokens": requests * context,
        }


def write(path: Path, passes: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in passes))
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["profile", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# A profile


def test_a_profile_is_shown_with_its_errors_and_the_capacity_of_each_role(
    capsys: pytest.CaptureFixture[str], profile: Path
) -> None:
    out = shown(capsys, profile)
    assert "\x1b" not in out
    for words in (
        "engine.json: profile",
        "128 to 16,384",
        "left out",
        "prefill",
        "decode",
        "agg",
        "bound by",
    ):
        assert words in out


def test_json_says_the_same_in_one_object(shown_json: Callable[..., Any], profile: Path) -> None:
    found = shown_json("profile", profile, "--itl-ms", 20)
    assert (found["kind"], found["num_gpus"], found["max_kv_tokens"]) == ("profile", 2, 1_000_000)
    assert [fit["part"] for fit in found["fit"]] == ["prefill", "decode"]
    assert [each["role"] for each in found["capacity"]] == ["prefill", "decode", "agg"]
    for each in found["capacity"]:
        assert each["requests_per_second"] == pytest.approx(2 * each["requests_per_second_per_gpu"])
    assert found["capacity"][1]["itl_ms"] <= 20


def test_a_tighter_sla_leaves_less_capacity(shown_json: Callable[..., Any], profile: Path) -> None:
    loose, tight = (
        [each["requests_per_second"] for each in shown_json("profile", profile, *options)["capacity"]]
        for options in (("--ttft-ms", 1000, "--itl-ms", 40), ("--ttft-ms", 200, "--itl-ms", 12))
    )
    assert all(less < more for less, more in zip(tight, loose, strict=True))


def test_an_sla_that_a_lone_request_misses_is_said_to_be_out_of_reach(
    shown_json: Callable[..., Any], profile: Path
) -> None:
    found = shown_json("profile", profile, "--itl-ms", 2)
    assert found["capacity"][1]["unreachable"] == "itl"
    assert any("the ITL can't be met" in note for note in found["notes"])


def test_prompts_beyond_the_profile_are_noted(shown_json: Callable[..., Any], profile: Path) -> None:
    assert any(
        "beyond the profile" in note for note in shown_json("profile", profile, "--isl", 50_000)["notes"]
    )


def test_every_real_profile_is_shown(shown_json: Callable[..., Any], shared_data: Path) -> None:
    for file in sorted((shared_data / "profiles").glob("*.npz")):
        found = shown_json("profile", file)
        assert len(found["capacity"]) == 3
        for fit in found["fit"]:
            assert fit["error_median"] < 0.03
            assert fit["left_out_median"] < 0.1


# Recorded passes


def test_a_folder_of_passes_is_fitted_role_by_role(shown_json: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "decode.jsonl", [*decode_passes(), {"worker_id": "w1", "wall_time_s": 0}])
    prompts = [
        {"worker_id": "p", "wall_time_s": 0.01 + 2e-5 * n, "num_prefill": 1, "prefill_tokens": n}
        for n in range(100, 8000, 100)
    ]
    write(tmp_path / "prefill.jsonl", prompts)
    found = shown_json("profile", tmp_path, "--max-kv-tokens", 400_000)
    assert [(fit["part"], fit["num_points"], fit["num_unusable"]) for fit in found["fit"]] == [
        ("prefill", 79, 0),
        ("decode", 200, 1),
    ]
    for fit in found["fit"]:
        assert fit["left_out_median"] < 0.03
    assert [each["role"] for each in found["capacity"]] == ["prefill", "decode"]
    assert found["notes"] == ["decode: 1 idle or impossible passes were left out"]


def test_both_spellings_of_a_pass_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.jsonl", decode_passes(20))
    theirs = [
        {
            "version": 1,
            "worker_id": "w0",
            "dp_rank": 0,
            "counter_id": number,
            "wall_time": each["wall_time_s"],
            "scheduled_requests": {
                "num_decode_requests": each["num_decode"],
                "sum_decode_kv_tokens": each["decode_kv_tokens"],
            },
            "queued_requests": {},
        }
        for number, each in enumerate(decode_passes(20))
    ]
    zipped = tmp_path / "theirs.jsonl.gz"
    zipped.write_bytes(gzip.compress("\n".join(map(json.dumps, theirs)).encode()))
    assert load_passes(ours) == load_passes(zipped)


def test_the_role_is_what_the_line_says_else_the_file_else_the_work(tmp_path: Path) -> None:
    both = {"worker_id": "a", "wall_time_s": 0.1, "prefill_tokens": 100, "num_decode": 3}
    one = next(decode_passes(1))
    write(tmp_path / "any.jsonl", [one, both, {**one, "worker_id": "b", "role": "agg"}])
    write(tmp_path / "prefill-1.jsonl", [{**one, "worker_id": "c"}])
    by_role = load_passes(tmp_path)
    assert {role: sorted(batch.worker_id.tolist()) for role, batch in by_role.items()} == {
        Role.PREFILL: ["c"],
        Role.DECODE: ["w0"],
        Role.AGG: ["a", "b"],
    }


def test_too_few_passes_are_said_to_be(
    shown_json: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = shown_json("profile", write(tmp_path / "decode.jsonl", decode_passes(4)))
    assert found["capacity"] == []
    assert found["notes"] == ["decode: 4 passes are too few for a regression"]
    assert "too few" in shown(capsys, tmp_path)


def test_an_unknown_kv_capacity_is_said_to_bound_nothing(
    shown_json: Callable[..., Any], tmp_path: Path
) -> None:
    found = shown_json("profile", write(tmp_path / "decode.jsonl", decode_passes()))
    assert any("--max-kv-tokens" in note for note in found["notes"])


# The plot


def test_the_plot_opens_without_a_network(
    capsys: pytest.CaptureFixture[str], profile: Path, tmp_path: Path
) -> None:
    passes = write(tmp_path / "decode.jsonl", decode_passes())
    for source in (profile, passes):
        shown(capsys, source, "--plot", tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "<script src=" not in page.replace("'", '"')
        assert "capacity" in page
        assert len(page) < 2_000_000


# What goes wrong


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ":1: is no JSON"),
        ("[]", ":1: is a list"),
        ('{"worker_id": "w"}', ":1: lacks wall_time_s"),
        ('{"worker_id": "w", "wall_time_s": "1"}', ":1: wall_time_s = '1': must be a number"),
        ('{"worker_id": "w", "wall_time_s": 1, "num_decod": 1}', "did you mean num_decode"),
        ('{"worker_id": "w", "wall_time_s": 1, "role": "router"}', "role = 'router': must be one of"),
        ('{"version": 2, "worker_id": "w", "wall_time": 1}', "version = 2: must be 1"),
        (
            '{"worker_id": "w", "wall_time": 1, "queued_requests": 3}',
            "queued_requests = 3: must be an object",
        ),
        ("", "holds no pass"),
    ],
)
def test_a_broken_line_is_named(refused: Callable[..., Any], tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "passes.jsonl"
    file.write_text(line)
    told = refused("profile", file)
    assert str(file) in told
    assert words in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such file or directory; a profile is a directory with"),
        (["PROFILE", "--isl", "0"], "'0' must be a number above 0"),
        (["PROFILE", "--quantile", "1"], "must be a share"),
        (["PROFILE", "--max-num-seqs", "2.5"], "must be a whole number"),
        (["PROFILE", "--plot", "nowhere/page.html"], "can't be written"),
        (["EMPTY"], "there is no profile"),
        (["NOTES"], "not readable JSON"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    refused: Callable[..., Any], profile: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.json").write_text("none")
    places = {"PROFILE": profile, "EMPTY": tmp_path / "empty", "NOTES": tmp_path / "notes.json"}
    assert words in refused("profile", *(places.get(argument, argument) for argument in arguments))
