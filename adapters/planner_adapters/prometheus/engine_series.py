"""What vLLM, SGLang and TensorRT-LLM call things on /metrics, and in which versions.

The names are those of the projects' public documentation and sources: vLLM's ``v1/metrics/loggers.py`` up to 0.19,
SGLang's ``metrics_collector.py`` of 0.4 and 0.5, TensorRT-LLM's ``metrics/collector.py`` of 1.0 to 1.3. Where a thing
has several names, the first that an engine exposes is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

import attrs

Framework: TypeAlias = Literal["vllm", "sglang", "trtllm"]
Quantity: TypeAlias = Literal[
    "running",
    "waiting",
    "preempted",
    "kv_share",
    "kv_tokens",
    "kv_blocks",
    "kv_block_tokens",
    "kv_capacity_tokens",
    "passes",
    "busy_s",
    "prompt_tokens",
    "computed_prompt_tokens",
    "cached_prompt_tokens",
    "prompts",
    "first_token_s",
    "generated_tokens",
    "token_gaps",
    "token_gap_s",
    "drafts",
    "accepted_tokens",
    "pass_s",
    "pass_prompts",
    "pass_prompt_tokens",
    "pass_decodes",
]


@attrs.frozen
class Named:
    """One name of a quantity."""

    series: str
    since: str
    until: str = ""
    """The last version that has it; empty: it is still there."""
    where: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Labels and the values of which one must stand there."""
    product_of: tuple[str, ...] = ()
    """Labels of an information series whose numbers, multiplied, are the value."""


@attrs.frozen
class Meaning:
    """What a quantity is, for people."""

    text: str
    counter: bool = False


MEANINGS: Final[Mapping[Quantity, Meaning]] = {
    "running": Meaning("requests in the engine's batch"),
    "waiting": Meaning("requests that wait"),
    "preempted": Meaning("requests put back while decoding"),
    "kv_share": Meaning("share of the KV cache in use, 0 to 1"),
    "kv_tokens": Meaning("KV-cache tokens in use"),
    "kv_blocks": Meaning("KV-cache blocks in use"),
    "kv_block_tokens": Meaning("tokens of a KV-cache block"),
    "kv_capacity_tokens": Meaning("tokens that the KV cache holds"),
    "passes": Meaning("forward passes", counter=True),
    "busy_s": Meaning("seconds of forward passes", counter=True),
    "prompt_tokens": Meaning("prompt tokens, cached ones too", counter=True),
    "computed_prompt_tokens": Meaning("prompt tokens that were computed", counter=True),
    "cached_prompt_tokens": Meaning("prompt tokens that the prefix cache served", counter=True),
    "prompts": Meaning("prompts computed", counter=True),
    "first_token_s": Meaning("seconds to first tokens, over requests", counter=True),
    "generated_tokens": Meaning("tokens generated", counter=True),
    "token_gaps": Meaning("gaps between tokens", counter=True),
    "token_gap_s": Meaning("seconds of gaps between tokens, over requests", counter=True),
    "drafts": Meaning("drafts of speculative decoding", counter=True),
    "accepted_tokens": Meaning("draft tokens that were accepted", counter=True),
    "pass_s": Meaning("duration of the latest pass"),
    "pass_prompts": Meaning("requests with prompt tokens in the latest pass"),
    "pass_prompt_tokens": Meaning("prompt tokens of the latest pass"),
    "pass_decodes": Meaning("requests that decoded in the latest pass"),
}

SERIES: Final[Mapping[Framework, Mapping[Quantity, tuple[Named, ...]]]] = {
    "vllm": {
        "running": (Named("vllm:num_requests_running", "0.4"),),
        "waiting": (Named("vllm:num_requests_waiting", "0.4"),),
        "kv_share": (
            Named("vllm:kv_cache_usage_perc", "0.10"),
            Named("vllm:gpu_cache_usage_perc", "0.4", "0.11"),
        ),
        "kv_capacity_tokens": (
            Named("vllm:cache_config_info", "0.5", product_of=("num_gpu_blocks", "block_size")),
        ),
        "passes": (Named("vllm:iteration_tokens_total_count", "0.7"),),
        "prompt_tokens": (Named("vllm:prompt_tokens_total", "0.4"),),
        "computed_prompt_tokens": (
            Named("vllm:prompt_tokens_by_source_total", "0.18", where={"source": ("local_compute",)}),
        ),
        "cached_prompt_tokens": (
            Named("vllm:prompt_tokens_cached_total", "0.18"),
            Named("vllm:prefix_cache_hits_total", "0.10"),
            Named("vllm:gpu_prefix_cache_hits_total", "0.8", "0.11"),
        ),
        "prompts": (Named("vllm:time_to_first_token_seconds_count", "0.4"),),
        "first_token_s": (Named("vllm:time_to_first_token_seconds_sum", "0.4"),),
        "generated_tokens": (Named("vllm:generation_tokens_total", "0.4"),),
        "token_gaps": (
            Named("vllm:inter_token_latency_seconds_count", "0.11"),
            Named("vllm:time_per_output_token_seconds_count", "0.4", "0.12"),
        ),
        "token_gap_s": (
            Named("vllm:inter_token_latency_seconds_sum", "0.11"),
            Named("vllm:time_per_output_token_seconds_sum", "0.4", "0.12"),
        ),
        "drafts": (Named("vllm:spec_decode_num_drafts_total", "0.9"),),
        "accepted_tokens": (Named("vllm:spec_decode_num_accepted_tokens_total", "0.8"),),
    },
    "sglang": {
        "running": (Named("sglang:num_running_reqs", "0.3"),),
        "waiting": (Named("sglang:num_queue_reqs", "0.4"),),
        "kv_tokens": (Named("sglang:kv_used_tokens", "0.5.10"), Named("sglang:num_used_tokens", "0.3")),
        "kv_share": (Named("sglang:full_token_usage", "0.5.10"), Named("sglang:token_usage", "0.3")),
        "kv_capacity_tokens": (Named("sglang:max_total_num_tokens", "0.5.5"),),
        "passes": (Named("sglang:cuda_graph_passes_total", "0.5.7"),),
        "busy_s": (
            Named("sglang:forward_execution_seconds_total", "0.5.9"),
            Named("sglang:gpu_execution_seconds_total", "0.5.7", "0.5.8"),
        ),
        "prompt_tokens": (Named("sglang:prompt_tokens_total", "0.4"),),
        "computed_prompt_tokens": (
            Named("sglang:realtime_tokens_total", "0.5.7", where={"mode": ("prefill_compute",)}),
        ),
        "cached_prompt_tokens": (Named("sglang:cached_tokens_total", "0.4.5"),),
        "prompts": (Named("sglang:time_to_first_token_seconds_count", "0.4"),),
        "first_token_s": (Named("sglang:time_to_first_token_seconds_sum", "0.4"),),
        "generated_tokens": (Named("sglang:generation_tokens_total", "0.4"),),
        "token_gaps": (
            Named("sglang:inter_token_latency_seconds_count", "0.4.4"),
            Named("sglang:time_per_output_token_seconds_count", "0.4", "0.4.3"),
        ),
        "token_gap_s": (
            Named("sglang:inter_token_latency_seconds_sum", "0.4.4"),
            Named("sglang:time_per_output_token_seconds_sum", "0.4", "0.4.3"),
        ),
    },
    "trtllm": {
        "running": (Named("trtllm_num_requests_running", "1.3"),),
        "waiting": (Named("trtllm_num_requests_waiting", "1.3"),),
        "preempted": (Named("trtllm_num_paused_requests", "1.3"),),
        "kv_blocks": (Named("trtllm_kv_cache_used_blocks", "1.3"),),
        "kv_block_tokens": (Named("trtllm_kv_cache_tokens_per_block", "1.3"),),
        "kv_share": (Named("trtllm_kv_cache_utilization", "1.2"),),
        "prompt_tokens": (Named("trtllm_prompt_tokens_total", "1.3"),),
        "prompts": (Named("trtllm_time_to_first_token_seconds_count", "1.0"),),
        "pass_s": (Named("trtllm_iteration_latency_seconds", "1.3"),),
        "pass_prompts": (Named("trtllm_num_context_requests", "1.3"),),
        "pass_prompt_tokens": (Named("trtllm_total_context_tokens", "1.3"),),
        "pass_decodes": (Named("trtllm_num_generation_requests", "1.3"),),
    },
}
"""Versions are the framework's. A name is looked for whatever the version: the range is what people are told."""

RANK_LABEL: Final[Mapping[Framework, str]] = {"vllm": "engine", "sglang": "dp_rank", "trtllm": "dp_rank"}
"""Numbers the data-parallel ranks of a worker. A series without it is shared by all of them."""
TWIN_LABELS: Final = ("tp_rank", "pp_rank", "moe_ep_rank")
"""Ranks that say the same of the same batch: the first of them counts."""


def names_of(framework: Framework) -> Iterator[str]:
    """Every series that is read of a framework, each once."""
    names = (named.series for known in SERIES[framework].values() for named in known)
    yield from dict.fromkeys(names)


def missing(framework: Framework, quantity: Quantity) -> str:
    """Why a quantity isn't known, and what would mend it."""
    known = SERIES[framework].get(quantity, ())
    looked_for = ", ".join(
        f"{named.series} ({framework} {named.since}{f' to {named.until}' if named.until else ' or later'})"
        for named in known
    )
    flag = {
        "vllm": "vLLM exposes it unless --disable-log-stats is given",
        "sglang": "SGLang exposes it with --enable-metrics",
        "trtllm": "TensorRT-LLM exposes it with return_perf_metrics and enable_iter_perf_stats",
    }[framework]
    return f"no {MEANINGS[quantity].text}: looked for {looked_for or 'nothing'}; {flag}"
