"""The quick way to read a scrape against the library's."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="needs the extra: pip install 'planner-core[prometheus]'")

from prometheus_client.parser import text_string_to_metric_families

from planner_adapters.prometheus.readings import MalformedMetricsError, parse

names = st.sampled_from(
    ["vllm:num_requests_running", "vllm:prompt_tokens_total", "vllm:cache_config_info", "vllm:other_total"]
)
texts = st.text(st.sampled_from('ab"\\,={} \té\u2028\x0b\r'), max_size=8)
escaped = texts.map(lambda text: text.replace("\\", r"\\").replace('"', r"\""))
labels = st.lists(st.tuples(st.sampled_from(["a", "b_1", "engine"]), escaped | texts), max_size=3)
values = st.floats().map(repr) | st.integers(-(10**20), 10**20).map(str)
values |= st.sampled_from(
    ["NaN", "+Inf", "-Inf", "1.2.3", "1e5", "1_0", "", "0x1", "1 1700000000", "--1", "1e"]
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    block = ",".join(f'{name}="{text}"' for name, text in draw(labels))
    braces = draw(st.sampled_from(["{%s}", "{%s,}", "{%s} ", "", " {%s}", "{%s"])).replace("%s", block)
    return f"{draw(names)}{braces} {draw(values)}"


def by_the_library(text: str) -> list[tuple[str, dict[str, str], float]]:
    wanted = [line for line in text.split("\n") if not line.startswith("vllm:other")]
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families("\n".join(wanted) + "\n")
        for sample in family.samples
    ]


def comparable(samples: list[Any]) -> list[tuple[str, ...]]:
    return sorted((name, repr(sorted(labels.items())), repr(float(value))) for name, labels, value in samples)


@given(st.lists(lines(), max_size=6))
def test_what_is_read_quickly_is_what_the_library_reads(found: list[str]) -> None:
    text = "\n".join(["# HELP vllm:prompt_tokens_total x", *found, "python_gc_objects_total 7"])
    try:
        expected = by_the_library("\n".join(found))
    except (ValueError, KeyError, IndexError):
        with pytest.raises(MalformedMetricsError):
            parse(text, "vllm")
        return
    quick = [(sample.name, dict(sample.labels), sample.value) for sample in parse(text, "vllm")]
    assert comparable(quick) == comparable(expected)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('vllm:num_requests_running{engine="0"} 20.0', 20.0),
        ("vllm:num_requests_running 2e1", 20.0),
        ('vllm:num_requests_running{a="\\"\\n",} 1 1700000000', 1.0),
        ('vllm:num_requests_running{engine="0"} NaN', math.nan),
    ],
)
def test_lines_are_read_in_every_form(line: str, value: float) -> None:
    (sample,) = parse(line, "vllm")
    assert repr(float(sample.value)) == repr(value)


def test_a_page_of_hostile_lines_is_read_in_one_go() -> None:
    """Nothing is tried twice: neither thousands of labels nor of quotes make a line slow."""
    many = ",".join(f'l{number}="x"' for number in range(20_000))
    (sample,) = parse("vllm:num_requests_running{" + many + "} 1\n" + "vllm:n" * 100_000, "vllm")
    assert len(sample.labels) == 20_000
    with pytest.raises(MalformedMetricsError):
        parse("vllm:num_requests_running{" + 'a="' * 10_000 + "\n", "vllm")
