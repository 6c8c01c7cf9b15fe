"""Engines behind real sockets: what the three frameworks expose becomes passes, and what is lost is left out."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from planner_adapters.environment import Unobserved
from planner_adapters.prometheus import EngineOptions, HttpOptions, Target, pass_source
from planner_core import ConfigError, FpmBatch, PlannerConfig, Role, WorkerCounts, initial_state

OPTIONS = EngineOptions(http=HttpOptions(timeout_s=0.5, retries=0, max_bytes=1_000_000))


def vllm(seconds: float, *, running: int = 20, waiting: int = 3, kv: float = 0.25, names: str = "new") -> str:
    """A vLLM engine that has worked for some seconds: 25 passes of 40 ms each second, a prompt of 1000 tokens in each
    tenth one, 20 requests decoding."""
    passes, prompts = 25 * seconds, 2.5 * seconds
    usage, gap = (
        ("kv_cache_usage_perc", "inter_token_latency_seconds")
        if names == "new"
        else ("gpu_cache_usage_perc", "time_per_output_token_seconds")
    )
    lines = {
        "num_requests_running": running,
        "num_requests_waiting": waiting,
        usage: kv,
        "iteration_tokens_total_count": passes,
        "prompt_tokens_total": 1000 * prompts,
        "prefix_cache_hits_total": 400 * prompts,
        "generation_tokens_total": 20 * passes + prompts,
        "time_to_first_token_seconds_count": prompts,
        "time_to_first_token_seconds_sum": 0.5 * prompts,
        f"{gap}_count": 20 * passes,
        f"{gap}_sum": 0.04 * 20 * passes,
    }
    labels = 'engine="0",model_name="m"'
    body = "".join(f"vllm:{name}{{{labels}}} {value}\n" for name, value in lines.items())
    info = 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="5000",prefix="True"} 1.0\n'
    noise = "# HELP python_gc_objects_collected_total x\npython_gc_objects_collected_total 7\n"
    return noise + "# TYPE vllm:num_requests_running gauge\n" + body + info


def sglang(seconds: float, rank: int | None = None) -> str:
    """The same work in SGLang's words."""
    passes, prompts = 25 * seconds, 2.5 * seconds
    twins = ["0", "1"]
    scheduler = {"num_running_reqs": 20, "num_queue_reqs": 3, "num_used_tokens": 20_000, "token_usage": 0.25}
    of_rank = "" if rank is None else f',dp_rank="{rank}"'
    text = ""
    for tp in twins:
        for name, value in scheduler.items():
            labels = f'engine_type="unified",model_name="m",pp_rank="0",tp_rank="{tp}"{of_rank}'
            text += f"sglang:{name}{{{labels}}} {value}\n"
    tokenizer = {
        "prompt_tokens_total": 1000 * prompts,
        "cached_tokens_total": 400 * prompts,
        "generation_tokens_total": 20 * passes + prompts,
        "time_to_first_token_seconds_count": prompts,
        "time_to_first_token_seconds_sum": 0.5 * prompts,
        "inter_token_latency_seconds_count": 20 * passes,
        "inter_token_latency_seconds_sum": 0.04 * 20 * passes,
    }
    return text + "".join(f'sglang:{n}{{model_name="m"}} {v}\n' for n, v in tokenizer.items())


def trtllm(seconds: float) -> str:
    """A TensorRT-LLM engine shows its latest pass."""
    lines = {
        "num_requests_running": 20,
        "num_requests_waiting": 3,
        "kv_cache_used_blocks": 625,
        "kv_cache_tokens_per_block": 32,
        "iteration_latency_seconds": 0.04 + seconds / 1e6,
        "num_context_requests": 1,
        "total_context_tokens": 600,
        "num_generation_requests": 20,
        "num_paused_requests": 0,
        "prompt_tokens_total": 2500 * seconds,
        "time_to_first_token_seconds_count": 2.5 * seconds,
    }
    return "".join(f'trtllm_{n}{{engine_type="trtllm",model_name="m"}} {v}\n' for n, v in lines.items())


class Fleet:
    """What each path answers, and the time."""

    def __init__(self, **bodies: Callable[[float], Any]) -> None:
        self.bodies = bodies
        self.now_s = 100.0

    def respond(self, path: str, form: str) -> Any:
        body = self.bodies[path.strip("/")](self.now_s)
        return (200, body.encode()) if isinstance(body, str) and body not in ("hang", "drop") else body


def watch(
    double: Any,
    fleet: Fleet,
    at_s: list[float],
    *,
    role: Role = Role.AGG,
    options: EngineOptions = OPTIONS,
    **changes: Any,
) -> tuple[list[dict[Role, FpmBatch]], dict[str, str]]:
    """The passes at each of these times, and the problems of the last one."""

    async def run() -> tuple[list[dict[Role, FpmBatch]], dict[str, str]]:
        async with double(fleet.respond) as server:
            config = PlannerConfig.from_mapping({"mode": str(role), **changes})
            source = pass_source(
                config,
                targets=lambda: [
                    Target(worker_id=name, url=f"{server.url}/{name}", role=role) for name in fleet.bodies
                ],
                options=options,
                clock=lambda: fleet.now_s,
            )
            found = []
            try:
                for now_s in at_s:
                    fleet.now_s = now_s
                    found.append(await source.passes())
            finally:
                await source.close()
            return found, source.problems

    return asyncio.run(run())


def only(batches: dict[Role, FpmBatch]) -> FpmBatch:
    (batch,) = batches.values()
    return batch


@pytest.mark.parametrize(
    "body", [vllm, lambda s: vllm(s, names="old"), sglang], ids=["vllm", "vllm-old", "sglang"]
)
def test_counters_become_the_mean_pass_and_what_is_in_hand(double: Any, body: Any) -> None:
    (_, batches), problems = watch(
        double, Fleet(a=body), [100, 105], backend="vllm" if body != sglang else "sglang"
    )
    batch = only(batches)
    assert problems == {}
    mean, now = range(2)
    assert batch.wall_time_s[mean] == pytest.approx(0.04)
    assert batch.num_prefill[mean] == pytest.approx(0.1)
    assert batch.prefill_tokens[mean] == pytest.approx(60)  # of 100, 40 were cached
    assert batch.prefill_kv_tokens[mean] == pytest.approx(40)
    assert batch.num_decode[mean] == pytest.approx(20)
    assert batch.decode_kv_tokens[mean] == pytest.approx(20_000)
    assert math.isnan(batch.wall_time_s[now])
    assert (batch.num_decode[now], batch.decode_kv_tokens[now]) == (20, 20_000)
    assert (batch.queued_num_prefill[now], batch.queued_prefill_tokens[now]) == (3, 3000)
    assert batch.learnable.tolist() == [True, False]
    assert batch.latest.tolist() == [1]


def test_tensorrt_llm_shows_its_latest_pass(double: Any) -> None:
    (_, batches), _ = watch(double, Fleet(a=trtllm), [100, 105], backend="trtllm")
    batch = only(batches)
    assert batch.wall_time_s[0] == pytest.approx(0.04, rel=0.01)
    assert (batch.num_prefill[0], batch.prefill_tokens[0]) == (1, 600)
    assert (batch.num_decode[0], batch.decode_kv_tokens[0]) == (20, 20_000)
    assert (batch.queued_num_prefill[1], batch.queued_prefill_tokens[1]) == (3, 3000)


def test_a_pass_that_is_still_the_latest_is_not_learned_again(double: Any) -> None:
    (_, batches), _ = watch(double, Fleet(a=lambda _: trtllm(100)), [100, 105], backend="trtllm")
    assert not only(batches).learnable.any()


def test_the_first_scrape_tells_what_is_in_hand_and_teaches_nothing(double: Any) -> None:
    (batches,), _ = watch(double, Fleet(a=vllm), [100])
    batch = only(batches)
    assert not batch.learnable.any()
    assert (batch.num_decode[0], batch.queued_prefill_tokens[0]) == (20, 3000)


def test_an_idle_engine_is_a_heartbeat(double: Any) -> None:
    idle = vllm(100, running=0, waiting=0, kv=0.0)
    (_, batches), _ = watch(double, Fleet(a=lambda _: idle), [100, 105])
    assert only(batches) == FpmBatch(worker_id=["a"], wall_time_s=[0.0])


def test_prefill_engines_queue_prompts_and_decode_engines_queue_contexts(double: Any) -> None:
    (_, prefill), _ = watch(double, Fleet(a=vllm), [100, 105], role=Role.PREFILL)
    (_, decode), _ = watch(double, Fleet(a=vllm), [100, 105], role=Role.DECODE)
    assert only(prefill).num_decode.tolist() == [0, 0]
    assert only(prefill).queued_prefill_tokens[1] == 3000
    assert only(decode).prefill_tokens.tolist() == [0, 0]
    assert only(decode).queued_num_decode[1] == 3
    assert only(decode).queued_decode_kv_tokens[1] == 3 * 1000


def test_ranks_are_engines_of_their_own_and_share_what_the_worker_counts(double: Any) -> None:
    (_, batches), _ = watch(
        double, Fleet(a=lambda s: sglang(s, 0) + sglang(0, 1)), [100, 105], backend="sglang"
    )
    batch = only(batches)
    assert sorted(set(batch.dp_rank.tolist())) == [0, 1]
    assert batch.num_workers == 1
    assert batch.num_decode[batch.latest].tolist() == [20, 20]


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (lambda _: "hang", "no answer within"),
        (lambda _: "drop", "disconnected"),
        (lambda _: (500, b"oops"), "HTTP 500: oops"),
        (lambda _: (200, b"x" * 2_000_000), "longer than 1000000 bytes"),
        (lambda _: 'vllm:num_requests_running{engine="0} }{ \n', "can't be read"),
        (lambda _: (200, b"vllm:num_requests_running\xff 1\n"), "can't be read"),
        (
            lambda _: "<html>\n",
            "no requests in the engine's batch: looked for vllm:num_requests_running (vllm 0.4",
        ),
        (lambda _: "vllm:num_requests_running 1\n", "no requests that wait"),
        (
            lambda _: vllm(1).replace('num_gpu_blocks="5000"', 'num_gpu_blocks="None"'),
            "no tokens that the KV cache",
        ),
        (lambda _: vllm(0, waiting=4), "no prompts computed"),
    ],
)
def test_one_lost_engine_leaves_that_engine_out(double: Any, lost: Any, says: str) -> None:
    (_, batches), problems = watch(double, Fleet(a=vllm, b=lost, c=vllm), [100, 105])
    assert set(only(batches).worker_id.tolist()) == {"a", "c"}
    assert list(problems) == ["b"]
    assert says in problems["b"]
    assert "\n" not in problems["b"]


def test_the_capacity_of_the_configuration_stands_in_for_one_that_is_not_exposed(double: Any) -> None:
    fleet = Fleet(a=lambda s: vllm(s).replace('num_gpu_blocks="5000"', 'num_gpu_blocks="None"'))
    (_, batches), _ = watch(double, fleet, [100, 105], engines={"agg": {"max_kv_tokens": 80_000}})
    assert only(batches).decode_kv_tokens[1] == 20_000


def test_where_no_engine_can_be_read_all_is_unknown(double: Any) -> None:
    with pytest.raises(Unobserved, match=r"no engine's metrics can be read: a: .*HTTP 500.*\(and 1 more\)"):
        watch(double, Fleet(a=lambda _: (500, b""), b=lambda _: (500, b"")), [100])


def test_no_engine_at_all_is_none(double: Any) -> None:
    assert watch(double, Fleet(), [100]) == ([{}], {})


def test_a_restarted_engine_teaches_nothing_until_its_second_scrape(double: Any) -> None:
    ages = {100: 100.0, 105: 2.0, 110: 7.0}
    (_, restarted, later), _ = watch(double, Fleet(a=lambda s: vllm(ages[int(s)])), [100, 105, 110])
    assert not only(restarted).learnable.any()
    assert only(later).wall_time_s[0] == pytest.approx(0.04)


def test_a_gap_of_minutes_teaches_nothing(double: Any) -> None:
    (_, after), _ = watch(double, Fleet(a=vllm), [100, 400])
    assert not only(after).learnable.any()


# Trap 42: one stuck queue entry blocks scale-down for ever.


def stuck(seconds: float) -> str:
    """An engine with requests in its queue that it has forgotten, and that nothing moves."""
    return vllm(100.0, running=0, waiting=30, kv=0.0)


def test_a_queue_that_nothing_moves_stops_counting_after_ten_minutes_and_is_named(double: Any) -> None:
    times = [100.0 + 50 * number for number in range(14)]
    found, problems = watch(double, Fleet(a=stuck, b=vllm), times)
    queued = [float(batches[Role.AGG].queued_num_prefill[batches[Role.AGG].latest[0]]) for batches in found]
    assert queued == [30.0] * 12 + [0.0] * 2
    assert problems == {
        "a": "a: what it has in hand no longer counts: it hasn't made a pass for 650 s, nor has its queue changed"
    }


def test_a_queue_that_moves_again_counts_again(double: Any) -> None:
    ends_s = 800.0
    times = [100.0 + 50 * number for number in range(16)]
    found, problems = watch(double, Fleet(a=lambda s: stuck(s) if s < ends_s else vllm(s)), times)
    queued = [float(only(batches).queued_num_prefill[-1]) for batches in found]
    assert queued[11:] == [30.0, 0.0, 0.0, 3.0, 3.0]
    assert problems == {}


def test_engines_that_show_no_counters_are_never_taken_for_stuck(double: Any) -> None:
    def gauges(seconds: float) -> str:
        kept = ("vllm:num_requests", "vllm:kv_cache_usage", "vllm:cache_config")
        return "".join(line + "\n" for line in vllm(100.0, waiting=0).splitlines() if line.startswith(kept))

    found, problems = watch(double, Fleet(a=gauges), [100.0 + 50 * number for number in range(14)])
    assert only(found[-1]).num_decode[-1] == 20
    assert problems == {}


def test_one_stuck_queue_entry_does_not_block_scale_down_for_ever(double: Any, ticked: Any) -> None:
    times = [100.0 + 30 * number for number in range(30)]
    idle = {"running": 0, "waiting": 0, "kv": 0.0}
    fleet = Fleet(a=stuck, b=lambda s: vllm(100.0, **idle), c=lambda s: vllm(100.0, **idle))
    found, _ = watch(double, fleet, times)
    config = PlannerConfig.from_mapping(
        {"mode": "agg", "engines": {"agg": {"max_kv_tokens": 16_000, "context_length": 8192}}}
    )
    state, replicas = initial_state(config, 95.0), [3]
    for now_s, batches in zip(times, found, strict=True):
        counts = {Role.AGG: WorkerCounts(ready=3, expected=3)}
        _, decision = ticked(config, now_s, state, workers=counts, fpm=batches)
        state = decision.state
        replicas.append(decision.replicas[Role.AGG])
    assert min(replicas[:20]) >= 3, "until then it may be work"
    assert replicas[-1] == 1


def test_engines_that_come_and_go_leave_nothing_behind(double: Any) -> None:
    fleet, now_s = Fleet(), [100.0]

    async def run() -> int:
        async with double(fleet.respond) as server:
            source = pass_source(
                PlannerConfig.from_mapping({"mode": "agg"}),
                targets=lambda: [
                    Target(worker_id=n, url=f"{server.url}/{n}", role=Role.AGG) for n in fleet.bodies
                ],
                clock=lambda: now_s[0],
            )
            for number in range(30):
                fleet.bodies = {f"pod-{number}": vllm}
                now_s[0] = fleet.now_s = 100.0 + 10 * number
                await source.passes()
            await source.close()
            return source.num_remembered

    assert asyncio.run(run()) <= 8


def test_names_too_long_to_be_one_are_refused(double: Any) -> None:
    _, problems = watch(double, Fleet(a=vllm, **{"b" * 300: vllm}), [100])
    assert "300 characters" in problems["b" * 253]


def test_a_configuration_that_names_neither_or_the_wrong_roles_is_refused() -> None:
    config = PlannerConfig.from_mapping({"mode": "disagg"})
    with pytest.raises(ConfigError, match="either targets or in_prometheus"):
        pass_source(config)
    with pytest.raises(ConfigError, match="labels of prefill: must be those of prefill, decode"):
        pass_source(config, in_prometheus={Role.PREFILL: {"a": "b"}})


T0 = 1_700_000_000


def scraped(body: Callable[[float], str], times: range, labels: str) -> str:
    """What a Prometheus that scrapes this engine stores."""
    lines: dict[str, list[str]] = {}
    for at_s in times:
        for line in body(at_s).splitlines():
            if line and not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name, _, own = series.partition("{")
                lines.setdefault(series, []).append(
                    f"{name}{{{labels}{',' + own if own else '}'} {value} {T0 + at_s}\n"
                )
    return "".join(line for one in lines.values() for line in one)


def test_the_same_passes_come_through_prometheus_one_for_each_scrape(prometheus_with: Any) -> None:
    text = scraped(vllm, range(0, 121, 15), 'dynamo_component="backend",pod="a"')
    text += scraped(vllm, range(0, 61, 15), 'dynamo_component="backend",pod="gone"')
    text += scraped(vllm, range(0, 121, 15), 'dynamo_component="other",pod="b"')
    now_s = [0.0]

    async def run(url: str) -> tuple[list[FpmBatch], dict[str, str]]:
        config = PlannerConfig.from_mapping({"mode": "agg", "prometheus_endpoint": url})
        source = pass_source(
            config,
            in_prometheus={Role.AGG: {"dynamo_component": "backend"}},
            options=EngineOptions(stale_after_s=40),
            clock=lambda: now_s[0],
        )
        found = []
        for now in (90, 95, 121):
            now_s[0] = T0 + now
            found.append(only(await source.passes()))
        await source.close()
        return found, source.problems

    (first, again, later), problems = asyncio.run(run(prometheus_with(text)))
    assert set(first.worker_id.tolist()) == {"a", "gone"}
    assert first.wall_time_s[first.learnable] == pytest.approx(0.04)
    assert not again.learnable.any()  # nothing new, and still there
    assert set(again.worker_id.tolist()) == {"a", "gone"}
    assert set(later.worker_id.tolist()) == {"a"}
    assert later.learnable.sum() == 2
    assert problems == {"gone": "gone: its last sample is 61 s old"}


def test_an_engine_whose_series_have_ended_is_left_out_at_once(double: Any) -> None:
    """A pod that is gone has samples for a while yet; Prometheus knows that no more will come."""
    ended = {"gone": False}

    def respond(path: str, form: str) -> Any:
        query = parse_qs(form)["query"][0]
        if query == "time()":
            return 200, answer("scalar", [T0 + 10, str(T0 + 10)])
        found = []
        for pod in ("a", "gone"):
            for line in vllm(100.0).splitlines():
                if line.startswith("#") or not line:
                    continue
                series, _, value = line.rpartition(" ")
                name, _, own = series.partition("{")
                labels = {"__name__": name, "pod": pod, **dict(re.findall(r'(\w+)="([^"]*)"', own))}
                if query.endswith("s]"):
                    found.append({"metric": labels, "values": [[T0, value]]})
                elif name == "vllm:num_requests_running" and not ended.get(pod):
                    found.append({"metric": labels, "value": [T0, value]})
        return 200, answer("matrix" if query.endswith("s]") else "vector", found)

    async def run() -> None:
        async with double(respond) as server:
            config = PlannerConfig.from_mapping({"mode": "agg", "prometheus_endpoint": server.url})
            source = pass_source(config, in_prometheus={Role.AGG: {"dynamo_component": "backend"}})
            assert set(only(await source.passes()).worker_id.tolist()) == {"a", "gone"}
            ended["gone"] = True
            assert set(only(await source.passes()).worker_id.tolist()) == {"a"}
            assert source.problems == {
                "gone": "gone: its last sample is 10 s old, and none followed: it is gone, or can't be scraped"
            }
            await source.close()

    asyncio.run(run())


def answer(kind: str, result: Any) -> bytes:
    """Prometheus's."""
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def test_a_metric_of_ten_megabytes_of_names_is_never_parsed(double: Any) -> None:
    noise = "".join(f'other_{n}{{a="b"}} 1\n' for n in range(10_000))
    (_, batches), _ = watch(double, Fleet(a=lambda s: noise + vllm(s)), [100, 105])
    assert only(batches).wall_time_s[0] == pytest.approx(0.04)


def test_numbers_that_cannot_be_true_are_unknown(double: Any) -> None:
    broken = lambda s: vllm(s, kv=float("nan"))  # noqa: E731
    (_, batches), problems = watch(double, Fleet(a=vllm, b=broken), [100, 105])
    assert set(only(batches).worker_id.tolist()) == {"a"}
    assert "no share of the KV cache in use" in problems["b"]
    assert json.dumps(problems)
