from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_adapters.simulation import Curve, Engine, EngineModel, EngineTiming, Request

# Powers of two, so that times add up without rounding and can be compared for equality.
TIMING = EngineTiming.from_coefficients(
    prefill_base_s=2**-6,
    prefill_s_per_token=2**-12,
    attention_s_per_pair=2**-20,
    decode_base_s=2**-7,
    decode_s_per_request=2**-12,
    decode_s_per_kv_token=2**-16,
)


class Wish(NamedTuple):
    arrival_s: float
    input_tokens: int
    output_tokens: int
    prefix_hit_tokens: int = 0


wishes = st.lists(
    st.builds(
        Wish,
        st.integers(0, 200).map(lambda n: n / 64),
        st.integers(1, 60),
        st.integers(1, 40),
        st.integers(0, 70),
    ),
    min_size=1,
    max_size=25,
).map(sorted)
models = st.builds(
    EngineModel,
    timing=st.just(TIMING),
    max_kv_tokens=st.integers(112, 400),
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(8, 64),
    kv_block_tokens=st.sampled_from([1, 4, 16]),
)


def serve(model: EngineModel, wishes: Sequence[Wish], *, hands_over: bool = False) -> list[Request]:
    """Plays all requests through one engine."""
    engine = Engine(model, hands_over=hands_over)
    requests = [Request(index, *wish) for index, wish in enumerate(wishes)]
    to_come = deque(requests)
    while to_come or engine.next_event_s < math.inf:
        if to_come and to_come[0].arrival_s <= engine.next_event_s:
            request = to_come.popleft()
            engine.submit(request, request.arrival_s)
        else:
            now_s = engine.next_event_s
            for request in engine.step(now_s):
                if request.emitted_tokens < request.output_tokens:
                    engine.release(request, now_s)
            assert 0 <= engine.kv_blocks_used <= model.kv_blocks
    assert engine.num_requests == 0
    assert engine.kv_blocks_used == 0
    return requests


class Times(NamedTuple):
    first_token_s: float
    finish_s: float


def serve_token_by_token(model: EngineModel, wishes: Sequence[Wish]) -> list[Times]:
    """The same rules, pass by pass and request by request, as plainly as they can be written."""
    wants = [w.input_tokens + w.output_tokens for w in wishes]
    cached = [0] * len(wishes)  # tokens in the KV cache
    known = [w.input_tokens for w in wishes]  # tokens of the prompt and of the output so far
    first, finish = [math.nan] * len(wishes), [math.nan] * len(wishes)
    reserved = [0] * len(wishes)  # tokens that have blocks
    decodes = [False] * len(wishes)
    to_come, waiting, running = deque(range(len(wishes))), deque[int](), list[int]()
    now_s = 0.0

    def blocks() -> int:
        return sum(-(-reserved[i] // model.kv_block_tokens) for i in running)

    while to_come or waiting or running:
        while to_come and wishes[to_come[0]].arrival_s <= now_s:
            waiting.append(to_come.popleft())
        if not waiting and not running:
            now_s = wishes[to_come[0]].arrival_s
            continue
        decoding = [i for i in running if decodes[i]]
        for i in decoding:
            reserved[i] = known[i]
        preempted = False
        while decoding and blocks() > model.kv_blocks:
            last = running.pop()
            cached[last] = reserved[last] = 0
            decodes[last] = False
            decoding = [i for i in decoding if i != last]
            waiting.appendleft(last)
            preempted = True
        budget = model.max_num_batched_tokens - len(decoding)
        chunks = {}
        for i in running:
            if i not in decoding:
                chunks[i] = min(budget, known[i] - cached[i])
                budget -= chunks[i]
        while waiting and budget > 0 and len(running) < model.max_num_seqs and not preempted:
            i = waiting[0]
            reserved[i] = known[i]
            if blocks() - (-known[i] // model.kv_block_tokens) > model.kv_blocks:
                break
            running.append(waiting.popleft())
            cached[i] = min(wishes[i].prefix_hit_tokens, wishes[i].input_tokens - 1)
            chunks[i] = min(budget, known[i] - cached[i])
            budget -= chunks[i]
        pairs = sum(n * (cached[i] + n / 2) for i, n in chunks.items())
        tokens = sum(chunks.values())
        decode = {"num_decode": len(decoding), "decode_kv_tokens": sum(cached[i] for i in decoding)}
        attention_s = (pairs - tokens * tokens / 2) * TIMING.attention_s_per_pair
        now_s += TIMING.pass_s(prefill_tokens=tokens, **decode) + attention_s
        for i, n in {**chunks, **dict.fromkeys(decoding, 1)}.items():
            cached[i] += n
            if cached[i] < known[i]:
                continue
            known[i] += 1
            decodes[i] = True
            if math.isnan(first[i]):
                first[i] = now_s
            if known[i] == wants[i]:
                finish[i] = now_s
                running.remove(i)
    return [Times(*pair) for pair in zip(first, finish, strict=True)]


@given(model=models, wishes=wishes)
def test_does_what_a_simulation_of_every_single_token_does(model: EngineModel, wishes: list[Wish]) -> None:
    served = serve(model, wishes)
    assert [Times(r.first_token_s, r.finish_s) for r in served] == serve_token_by_token(model, wishes)


@given(model=models, wishes=wishes)
def test_every_request_gets_all_its_tokens_and_the_cache_is_never_overfull(
    model: EngineModel, wishes: list[Wish]
) -> None:
    for request in serve(model, wishes):
        assert request.emitted_tokens == request.output_tokens
        assert request.arrival_s < request.first_token_s <= request.finish_s


@given(wishes=wishes)
def test_first_come_first_served_where_memory_is_ample(wishes: list[Wish]) -> None:
    model = EngineModel(timing=TIMING, max_kv_tokens=10_000, max_num_seqs=4, max_num_batched_tokens=32)
    first_tokens = [r.first_token_s for r in serve(model, wishes)]
    assert first_tokens == sorted(first_tokens)


@given(model=models, wishes=wishes)
def test_a_prefill_engine_is_done_at_the_first_token(model: EngineModel, wishes: list[Wish]) -> None:
    model = attrs.evolve(model, prefill_emits_first_token=True)
    for request in serve(model, wishes, hands_over=True):
        assert request.emitted_tokens == 1
        assert request.first_token_s > request.arrival_s


@given(model=models, wishes=wishes)
def test_a_prefill_engine_leaves_the_first_token_to_the_decode_engine(
    model: EngineModel, wishes: list[Wish]
) -> None:
    for request in serve(model, wishes, hands_over=True):
        assert request.emitted_tokens == 0
        assert math.isnan(request.first_token_s)


def test_the_first_token_comes_with_the_last_chunk() -> None:
    model = EngineModel(timing=TIMING, max_kv_tokens=1_000, max_num_seqs=4, max_num_batched_tokens=32)
    [request] = serve(model, [Wish(0.0, 80, 3)])
    chunks_s = [
        TIMING.pass_s(prefill_tokens=n, prefill_context_tokens=c) for n, c in ((32, 0), (32, 32), (16, 64))
    ]
    decodes_s = [TIMING.pass_s(num_decode=1, decode_kv_tokens=kv) for kv in (80, 81)]
    assert request.first_token_s == sum(chunks_s)
    assert request.finish_s == sum(chunks_s) + sum(decodes_s)


def test_a_prefix_in_the_cache_is_not_computed_again() -> None:
    model = EngineModel(timing=TIMING, max_kv_tokens=1_000, max_num_seqs=4, max_num_batched_tokens=128)
    [request] = serve(model, [Wish(0.0, 100, 1, prefix_hit_tokens=90)])
    assert request.first_token_s == TIMING.pass_s(prefill_tokens=10, prefill_context_tokens=90)


def test_the_last_admitted_request_gives_way_when_the_cache_is_full() -> None:
    model = EngineModel(
        timing=TIMING, max_kv_tokens=100, max_num_seqs=4, max_num_batched_tokens=128, kv_block_tokens=1
    )
    alone, _ = serve(model, [Wish(0.0, 40, 50), Wish(100.0, 1, 1)])
    older, younger = serve(model, [Wish(0.0, 40, 50), Wish(0.0, 40, 50)])
    assert younger.finish_s > older.finish_s
    assert older.finish_s < 2 * alone.finish_s
    assert younger.finish_s > older.finish_s + alone.finish_s / 3  # computed again, then decoded alone


def test_cost_grows_with_requests_not_with_tokens() -> None:
    model = EngineModel(timing=TIMING, max_kv_tokens=2_000_000)
    engine = Engine(model)
    engine.submit(Request(0, 0.0, 10, 1_000_000), 0.0)
    steps = 0
    while engine.next_event_s < math.inf:
        engine.step(engine.next_event_s)
        steps += 1
    assert steps == 3  # begins, prefills, decodes a million tokens


def test_a_long_decode_takes_the_sum_of_its_passes_on_a_curved_timing() -> None:
    def curve(seconds: float) -> Curve:
        return Curve(x=(1.0, 8.0), y=(seconds, 2 * seconds))

    timing = EngineTiming(
        dense=TIMING.dense,
        attention_s_per_pair=0.0,
        decode=((100.0, curve(0.010)), (300.0, curve(0.011)), (700.0, curve(0.020)), (900.0, curve(0.050))),
    )
    [request] = serve(EngineModel(timing=timing, max_kv_tokens=10_000), [Wish(0.0, 50, 1_001)])
    passes_s = [timing.pass_s(num_decode=1, decode_kv_tokens=kv) for kv in range(50, 1_050)]
    assert request.finish_s - request.first_token_s == pytest.approx(math.fsum(passes_s))


def test_tells_of_each_pass_and_of_the_queue_behind_it() -> None:
    model = EngineModel(timing=TIMING, max_kv_tokens=1_000, max_num_seqs=2, max_num_batched_tokens=64)
    engine = Engine(model)
    for index, tokens in enumerate((30, 50, 20, 40)):
        engine.submit(Request(index, 0.0, tokens, 10), 0.0)
    engine.step(0.0)
    first_end_s = engine.next_event_s
    engine.step(first_end_s)
    [record] = engine.take_passes(first_end_s)
    assert record.wall_time_s == first_end_s
    assert (record.num_prefill, record.prefill_tokens, record.var_prefill_length) == (2, 64, 100.0)
    assert (record.queued_num_prefill, record.queued_prefill_tokens) == (2, 60)
    second_end_s = engine.next_event_s
    engine.step(second_end_s)
    [record] = engine.take_passes(second_end_s)
    assert (record.prefill_tokens, record.prefill_kv_tokens) == (16, 34)
    assert (record.num_decode, record.decode_kv_tokens) == (1, 30)


def test_a_stretch_of_decode_passes_is_told_by_its_latest() -> None:
    engine = Engine(EngineModel(timing=TIMING, max_kv_tokens=100_000))
    engine.submit(Request(0, 0.0, 10, 10_000), 0.0)
    engine.step(0.0)
    engine.step(engine.next_event_s)
    first, last = engine.take_passes(10.0)
    assert first.num_prefill == 1
    assert last.num_decode == 1
    assert last.wall_time_s == TIMING.pass_s(num_decode=1, decode_kv_tokens=last.decode_kv_tokens)
    [later] = engine.take_passes(11.0)
    assert later.decode_kv_tokens > last.decode_kv_tokens


def test_an_idle_engine_gives_a_heartbeat() -> None:
    engine = Engine(EngineModel(timing=TIMING, max_kv_tokens=1_000))
    [record] = engine.take_passes(5.0)
    assert record.wall_time_s == 0
    assert sum(record) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_kv_tokens", 0),
        ("max_kv_tokens", 8),
        ("num_gpus", 0),
        ("max_num_seqs", 1.5),
        ("max_num_batched_tokens", 100),
        ("kv_transfer_tokens_per_s", 0.0),
        ("kv_transfer_latency_s", -1.0),
        ("context_length", -1),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused_by_key_and_value(key: str, value: float) -> None:
    capacities: dict[str, float] = {"max_kv_tokens": 1_000, key: value}
    with pytest.raises(ValueError, match=f"EngineModel.{key} = {value}"):
        EngineModel(timing=TIMING, **capacities)  # type: ignore[arg-type]
