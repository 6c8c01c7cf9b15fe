"""Engines that come with the simulator: three real pairs of model and GPU, as linear fits of public
measurements.

``llama-3.1-8b-fp8-h200`` (1 GPU)
    vLLM 0.10.1, swept by Dynamo's profiler (ai-dynamo/dynamo, planner test data ``H200_TP1P_TP1D``,
    Apache-2.0): 17 prefill points of 100–16 372 tokens, 40 decode points of up to 1 049 requests.
    Non-negative least squares on relative errors; prefill off by 1.7 % in the median (9 % at most), decode by
    2.4 % (17 %). Prefill times are as a client saw them, so that the 18.6 ms of an empty prompt hold more
    than the engine.

``llama-3.1-70b-fp8-h100`` (4 GPUs, tensor-parallel) and ``llama-3.1-70b-fp8-b200`` (2 GPUs)
    vLLM under closed-loop load, 15 operating points each: 4–64 requests at a time; 1 024 or 8 192 tokens in,
    1 024 or 8 192 out (measured in October 2025, published in PyPI ``aiconfigurator-core`` 0.12.0,
    ``systems/silicon_sample.csv``, Apache-2.0). An output token there takes one decode iteration and its
    share of the prompts that come in meanwhile, n × isl / osl tokens; the fit of that is off by 2.0 % in the
    median (5.6 % at most) on H100 and by 0.7 % (2.8 %) on B200. Two prompt lengths can't tell attention from
    the rest: its coefficient comes from aiconfigurator's model of the same network on four H200, scaled with
    the GPUs' speed. KV capacity: 90 % of the memory less 71 GB of weights, at 320 KB a token on H100 (BF16)
    and 160 KB on B200 (FP8), which is what the fitted time per KV token amounts to at the GPUs' bandwidth.
"""

from __future__ import annotations

from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.timing import EngineTiming

PRESETS: dict[str, EngineModel] = {
    "llama-3.1-8b-fp8-h200": EngineModel(
        timing=EngineTiming.from_coefficients(
            prefill_base_s=18.55e-3,
            prefill_s_per_token=14.11e-6,
            attention_s_per_pair=0.984e-9,
            decode_base_s=4.397e-3,
            decode_s_per_request=35.4e-6,
            decode_s_per_kv_token=29.8e-9,
        ),
        num_gpus=1,
        max_kv_tokens=945_029,
        max_num_seqs=1_024,
        context_length=131_072,
        kv_transfer_tokens_per_s=380_000.0,
    ),
    "llama-3.1-70b-fp8-h100": EngineModel(
        timing=EngineTiming.from_coefficients(
            prefill_base_s=11.02e-3,
            prefill_s_per_token=40.7e-6,
            attention_s_per_pair=1.02e-9,
            decode_base_s=11.02e-3,
            decode_s_per_request=59.3e-6,
            decode_s_per_kv_token=27.1e-9,
        ),
        num_gpus=4,
        max_kv_tokens=662_000,
        context_length=131_072,
        kv_transfer_tokens_per_s=610_000.0,
    ),
    "llama-3.1-70b-fp8-b200": EngineModel(
        timing=EngineTiming.from_coefficients(
            prefill_base_s=9.97e-3,
            prefill_s_per_token=42.4e-6,
            attention_s_per_pair=0.9e-9,
            decode_base_s=9.97e-3,
            decode_s_per_request=36.3e-6,
            decode_s_per_kv_token=9.13e-9,
        ),
        num_gpus=2,
        max_kv_tokens=1_544_000,
        context_length=131_072,
        kv_transfer_tokens_per_s=610_000.0,
    ),
}
"""Engine models by name."""
