from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planner_adapters.report import Series, series_of, write_report
from planner_core import Role

NUM_TICKS = 120
SIZES = [(1280, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def series(noisy_run: Callable[..., Any]) -> Series:
    hostile = ("worker <img src=https://example.org/x onerror=alert(2)> & %{y} </script> is silent",)
    return series_of(noisy_run(NUM_TICKS, notes=hostile))


@pytest.fixture(scope="module")
def url(series: Series, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, series)
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_report_opens_alone_and_says_what_was_decided(
    url: str, series: Series, page_of: Callable[..., Any], width: int, scheme: str
) -> None:
    with page_of(width, scheme) as (page, said, asked):
        page.goto(url)
        page.wait_for_selector("body[data-drawn]")
        assert page.locator(".chart").count() == page.locator(".chart .subplot.xy").count() == 12
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]

        last = series.timelines[Role.DECODE, "load"][-5:]  # a narrow screen has less than a pixel for each
        says = hovered(page)
        assert any("".join(moment.sentence.split()) in says for moment in last)
        assert page.locator("img").count() == 0
        assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
        assert said == []


def hovered(page: Any) -> str:
    """What the last column of the timeline of decode's load loop says, without spaces."""
    page.locator("#decisions").scroll_into_view_if_needed()
    box = page.locator("#decisions .nsewdrag").bounding_box()
    # four timelines, the third from above
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] * 2.5 / 4)
    page.wait_for_selector("#tip:not([hidden])")
    return "".join("".join(page.locator("#tip").all_text_contents()).split())


def test_every_reason_is_seen_without_scrolling_within_the_table(
    url: str, page_of: Callable[..., Any]
) -> None:
    with page_of(1280) as (page, _, _):
        page.goto(url)
        page.wait_for_selector("body[data-drawn]")
        box = page.locator("#times").locator("..")
        assert box.evaluate("each => each.scrollHeight <= each.clientHeight")


def test_zooming_into_one_chart_zooms_into_all(url: str, page_of: Callable[..., Any]) -> None:
    with page_of(1280) as (page, _, _):
        page.goto(url)
        page.wait_for_selector("body[data-drawn]")
        page.evaluate(
            """() => {
                const chart = document.querySelector('.chart'), [from] = chart.layout.xaxis.range;
                return Plotly.relayout(chart, {'xaxis.range[0]': from + 6e4, 'xaxis.range[1]': from + 12e4});
            }"""
        )
        for chart in page.locator(".chart").all():
            chart.scroll_into_view_if_needed()  # what isn't seen is drawn when it is
            page.wait_for_function(SECONDS_SHOWN, arg=[chart.get_attribute("id"), 60, 60])
        page.locator("#decisions .nsewdrag").dblclick()
        for chart in page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
            page.wait_for_function(SECONDS_SHOWN, arg=[chart.get_attribute("id"), 590, 610])


SECONDS_SHOWN = """([id, low, high]) => {
    const [from, to] = document.getElementById(id).layout.xaxis.range.map(at => +new Date(at));
    return to - from >= 1000 * low && to - from <= 1000 * high;
}"""


def test_a_line_through_fewer_points_hides_no_peak(url: str, page_of: Callable[..., Any]) -> None:
    with page_of(390) as (page, _, _):
        page.goto(url)
        page.wait_for_selector("body[data-drawn]")
        given, drawn = page.evaluate(
            """() => {
                const x = [...Array(5000).keys()], y = x.map(i => i % 977 === 5 ? NaN : Math.sin(i) * (i % 311));
                const of = curve => [100, 2500, 4000].map(from => run.extremes(curve, from, from + 400, NaN))
                    .map(({low, high}) => [low, high]).concat([curve.y.filter(isNaN).length]);
                const few = run.thinned({x, y}, 0, 5000, 100);
                return [of({x, y}), [...of(few), few.x.length]];
            }"""
        )
        assert drawn[:-1] == given
        assert drawn[-1] <= 5 * 102
