from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.simulation.synthetic import working_day
from planner_adapters.simulation.traces import load_workload
from planner_adapters.simulation.workload import Workload, WorkloadError

PLAIN = "arrival_s,input_tokens,output_tokens\n0,100,10\n1.5,200,20\n"


def write(tmp_path: Path, text: str, name: str = "trace.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def problem_of(tmp_path: Path, text: str, name: str = "trace.csv") -> str:
    """The one line that a bad trace gets; it names the file."""
    path = write(tmp_path, text, name)
    with pytest.raises(WorkloadError) as caught:
        load_workload(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


# What is read


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_a_csv_is_read_plain_or_gzipped(tmp_path: Path, name: str) -> None:
    expected = Workload(name="trace", arrival_s=[0, 1.5], input_tokens=[100, 200], output_tokens=[10, 20])
    assert load_workload(write(tmp_path, PLAIN, name)) == expected


def test_gzip_is_told_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(PLAIN.encode()))
    assert len(load_workload(path)) == 2


def test_columns_are_found_by_name_and_others_ignored(tmp_path: Path) -> None:
    text = "client,output_tokens,arrival_s,input_tokens,prefix_hit_tokens\nme,10,0,100,64\n"
    workload = load_workload(write(tmp_path, text))
    assert (workload.input_tokens, workload.output_tokens) == ([100], [10])
    assert workload.prefix_hit_tokens == [64]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeff" + PLAIN.replace("\n", "\r\n") + "\r\n\r\n"
    assert len(load_workload(write(tmp_path, text))) == 2


def test_the_azure_csv_is_read_as_published(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
    )
    workload = load_workload(write(tmp_path, text))
    np.testing.assert_allclose(workload.arrival_s, [0, 4.314579], atol=1e-6)
    assert workload.output_tokens.tolist() == [44, 109]


def test_the_azure_csv_may_have_time_zones(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:01.009930+00:00,2399,6\n"
    )
    assert load_workload(write(tmp_path, text)).arrival_s.tolist() == [0, 1]


def mooncake(*lines: tuple[float, int, int, list[int]]) -> str:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz", "trace.json.txt"])
def test_mooncake_lines_are_read_with_milliseconds_as_seconds(tmp_path: Path, name: str) -> None:
    workload = load_workload(write(tmp_path, mooncake((0, 600, 10, [1, 2]), (2500, 700, 20, [3, 4])), name))
    assert workload.arrival_s.tolist() == [0, 2.5]
    assert workload.input_tokens.tolist() == [600, 700]


def test_an_ideal_cache_serves_the_leading_blocks_that_were_seen_before(tmp_path: Path) -> None:
    text = mooncake(
        (0, 1536, 10, [1, 2, 3]),
        (1, 2048, 10, [1, 2, 9, 3]),  # 3 was seen, but 9 before it was not
        (2, 1400, 10, [1, 2, 3]),  # the last block is not full
    )
    assert load_workload(write(tmp_path, text)).prefix_hit_tokens.tolist() == [0, 1024, 1400]
    assert load_workload(tmp_path / "trace.csv", block_tokens=64).prefix_hit_tokens.tolist() == [0, 128, 192]


def test_without_hashes_prefix_hits_are_not_known(tmp_path: Path) -> None:
    text = '{"timestamp": 0, "input_length": 600, "output_length": 10}\n'
    assert load_workload(write(tmp_path, text)).prefix_hit_tokens is None


@pytest.mark.parametrize(
    "name", ["azure23_conv", "azure23_code", "agentic_coding_a", "servegen_m_mid_day_thinned"]
)
def test_real_traces_are_read_row_by_row(shared_data: Path, name: str) -> None:
    workload = load_workload(shared_data / "traces" / f"{name}.csv.gz")
    figures = json.loads((shared_data / "stats.json").read_text())["traces"][name]
    assert len(workload) == figures["rows"]
    assert workload.input_tokens.mean() == pytest.approx(figures["isl"]["mean"], rel=1e-3)
    assert workload.output_tokens.mean() == pytest.approx(figures["osl"]["mean"], rel=1e-3)


# What is refused


@pytest.mark.parametrize(
    ("rows", "row", "words"),
    [
        ("0,100,10\n1,-5,10\n", 3, "input_tokens = -5 must be at least 1"),
        ("0,100,0\n", 2, "output_tokens = 0 must be at least 1"),
        ("0,100,10\n\n1,100,many\n", 4, "output_tokens = 'many' is no whole number of tokens"),
        ("0,12.5,10\n", 2, "input_tokens = '12.5' is no whole number of tokens"),
        ("0,,10\n", 2, "input_tokens = '' is no whole number of tokens"),
        ("0,1e30,10\n", 2, "input_tokens = '1e30' is no whole number of tokens"),
        ("5,100,10\n4,100,10\n", 3, "arrival_s = 4.0 is earlier than the row before; sort"),
        ("nan,100,10\n", 2, "arrival_s = nan must be a finite number"),
        ("0,100,10\ninf,100,10\n", 3, "arrival_s = inf must be a finite number"),
        ("-1,100,10\n", 2, "arrival_s = -1.0 must be a finite number of at least 0"),
        ("1700000000,100,10\n", 2, "is no time since the start of the trace"),
        ("noon,100,10\n", 2, "arrival_s = 'noon' is no number"),
        ("0,100\n", 2, "has 2 cells and none for output_tokens"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_its_value(
    tmp_path: Path, rows: str, row: int, words: str
) -> None:
    message = problem_of(tmp_path, "arrival_s,input_tokens,output_tokens\n" + rows)
    assert message.startswith(f", row {row}: ")
    assert words in message


def test_prefix_hits_beyond_the_input_are_refused(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens,prefix_hit_tokens\n0,100,10,101\n"
    assert "row 2: prefix_hit_tokens = 101 is above" in problem_of(tmp_path, text)


def test_a_missing_column_is_named_with_what_there_is(tmp_path: Path) -> None:
    message = problem_of(tmp_path, "arrival_s,tokens\n0,100\n")
    assert "no input_tokens and no output_tokens" in message
    assert "'arrival_s,tokens'" in message
    assert "row 1" in message


def test_a_csv_without_a_header_is_told_to_have_one(tmp_path: Path) -> None:
    assert "row 1: the header has no arrival_s" in problem_of(tmp_path, "0,100,10\n")


@pytest.mark.parametrize("text", ["", "\n", "arrival_s,input_tokens,output_tokens\n"])
@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_an_empty_file_is_told_what_it_should_hold(tmp_path: Path, text: str, name: str) -> None:
    assert "holds no request; a trace is a CSV with" in problem_of(tmp_path, text, name)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"timestamp": 0, "input_length": 600}', "missing required field `output_length`"),
        ('{"timestamp": 0, "input_length": "long", "output_length": 1}', "`$.input_length`"),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1}', "input_tokens = 0 must be at least 1"),
        ("not json", "JSON is malformed"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    text = mooncake((0, 600, 10, [1])) + line + "\n"
    message = problem_of(tmp_path, text, "trace.jsonl")
    assert message.startswith(", row 2: ")
    assert words in message


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-12], lambda data: b"PK" + data, lambda data: data[:3]]
)
def test_a_broken_gzip_is_not_a_traceback(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(damage(gzip.compress(PLAIN.encode())))  # type: ignore[operator]
    with pytest.raises(WorkloadError, match="not readable as gzip"):
        load_workload(path)


def test_a_binary_file_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(WorkloadError, match="is not text"):
        load_workload(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(WorkloadError, match="can't be read"):
            load_workload(path)


@given(st.binary(max_size=200))
def test_no_file_whatever_its_bytes_gives_anything_but_a_workload_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    for content in (data, b"arrival_s,input_tokens,output_tokens\n" + data):
        path.write_bytes(content)
        problem = ""
        try:
            load_workload(path)
        except WorkloadError as error:
            problem = str(error)
        assert "\n" not in problem


# The columns themselves


def test_a_slice_or_a_mask_picks_requests() -> None:
    workload = working_day(hours=0.5, mean_rps=2)
    early = workload[workload.arrival_s < 600]
    assert len(early) < len(workload)
    assert early == workload[: len(early)]


def test_columns_can_not_be_written_to() -> None:
    workload = Workload(name="one", arrival_s=[0], input_tokens=[1], output_tokens=[1])
    with pytest.raises(ValueError, match="read-only"):
        workload.arrival_s[0] = 1


def test_columns_must_be_of_equal_length() -> None:
    with pytest.raises(WorkloadError, match="equal length"):
        Workload(name="odd", arrival_s=[0, 1], input_tokens=[1], output_tokens=[1])


@pytest.mark.parametrize("tokens", [1.5, float("nan"), float("inf")])
def test_tokens_are_whole(tokens: float) -> None:
    with pytest.raises(WorkloadError, match="whole numbers"):
        Workload(name="half", arrival_s=[0], input_tokens=[tokens], output_tokens=[1])


# The built-in day


def test_the_working_day_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert working_day(seed=1) == working_day(seed=1)
    assert working_day(seed=1) != working_day(seed=2)


def test_the_working_day_has_the_statistics_it_documents() -> None:
    workload = working_day()
    per_minute = np.histogram(workload.arrival_s, np.arange(0, 3 * 3600 + 1, 60))[0]
    assert len(workload) == pytest.approx(16 * 3 * 3600, rel=0.02)
    assert 2.6 < per_minute.max() / per_minute.mean() < 4.2
    assert 0.1 < per_minute.min() / per_minute.mean() < 0.25
    assert 1020 < np.median(workload.input_tokens) < 1469
    assert 4083 < np.percentile(workload.input_tokens, 95) < 7303
    assert 13 < np.median(workload.output_tokens) < 129
