"""A performance model from data sheets: how long a pass must take, by the model's size and the GPU's speed.

After the roofline model (Williams, Waterman and Patterson, 2009). A pass over m tokens, T of prompts and n of decodes,

- reads the weights once, ``P·b`` bytes; of a mixture of experts those that m tokens meet: each token meets the share
  ``a`` = active / all parameters, so that m tokens meet ``1 − (1 − a)^m`` of them;
- computes ``2·P_active·m`` floating-point operations (Kaplan et al., 2020, section 2.1), while it reads: the longer of
  the two counts;
- attends: 4 operations per attention pair and attention channel, over all layers (two for QKᵀ, two for its product
  with V), and reads the KV cache of the decodes;
- and launches kernels: a fixed time.

No engine reaches what a data sheet promises. The default efficiencies are medians over measured engines; the
explanation in the documentation has the errors that remain.
"""

from __future__ import annotations

import difflib
from typing import Any

import attrs
import numpy as np

from planner_core.data.checks import config_number
from planner_core.data.errors import ConfigError
from planner_core.data.fpm import Floats
from planner_core.perf.prior import Known
from planner_core.perf.protocol import BatchLoad


@attrs.frozen(kw_only=True)
class Gpu:
    """What a data sheet promises of one GPU: dense arithmetic, without the sparsity that doubles the headlines."""

    bf16_flops: float
    """Per second, BF16 (FP16 where there is no BF16) on tensor cores."""
    fp8_flops: float | None
    """Per second; ``None``: there is no FP8, and such weights are computed with in BF16."""
    memory_bytes_per_s: float
    memory_bytes: float


def _gpu(bf16_tflops: float, fp8_tflops: float | None, terabytes_per_s: float, gigabytes: float) -> Gpu:
    return Gpu(
        bf16_flops=bf16_tflops * 1e12,
        fp8_flops=None if fp8_tflops is None else fp8_tflops * 1e12,
        memory_bytes_per_s=terabytes_per_s * 1e12,
        memory_bytes=gigabytes * 1e9,
    )


GPUS: dict[str, Gpu] = {
    "b200": _gpu(2250, 4500, 7.7, 180),
    "gb200": _gpu(2500, 5000, 8.0, 186),
    "h200": _gpu(989.5, 1979, 4.8, 141),
    "h100": _gpu(989.5, 1979, 3.35, 80),
    "h100-pcie": _gpu(756.5, 1513, 2.0, 80),
    "h100-nvl": _gpu(835.5, 1671, 3.9, 94),
    "a100": _gpu(312, None, 2.039, 80),
    "a100-40gb": _gpu(312, None, 1.555, 40),
    "l40s": _gpu(362, 733, 0.864, 48),
    "l4": _gpu(121, 242.5, 0.3, 24),
    "a10": _gpu(125, None, 0.6, 24),
    "a30": _gpu(165, None, 0.933, 24),
    "t4": _gpu(65, None, 0.32, 16),
    "v100": _gpu(125, None, 0.9, 32),
    "rtx-4090": _gpu(165.2, 330.3, 1.008, 24),
}
"""From NVIDIA's data sheets (SXM where a form has several and none is named; FP32 accumulation). GB200 and B200: one of
the GPUs of a GB200 NVL72 and of an HGX B200."""

_AN_8B_MODEL = {"parameters": 8.03e9, "kv_bytes_per_token": 131_072.0, "attention_channels": 131_072.0}
"""Llama 3.1 8B: 32 layers, 32 heads and 8 KV heads of 128 channels, KV cache in BF16."""
_KV_GROWTH, _CHANNELS_GROWTH = 0.43, 0.75
"""How KV bytes and attention channels grow with the parameters, as powers: from Llama 3.1 8B to 70B."""

_positive = config_number(above=0)
_share = config_number(above=0, most=1)


@attrs.frozen(kw_only=True)
class Roofline(Known):
    """A prior from the size of the model and the speed of its GPUs. :meth:`of` fills in what isn't given.

    Quantities are those of the whole engine, all its GPUs together.
    """

    num_parameters: float = attrs.field(validator=_positive)
    active_parameters: float = attrs.field(validator=_positive)
    """Of them, those that one token meets; fewer in a mixture of experts."""
    weight_bytes: float = attrs.field(validator=_positive)
    kv_bytes_per_token: float = attrs.field(validator=_positive)
    attention_channels: float = attrs.field(validator=_positive)
    """Layers × heads × channels of a head."""
    flops: float = attrs.field(validator=_positive)
    """Per second, by the data sheet."""
    memory_bytes_per_s: float = attrs.field(validator=_positive)
    memory_bytes: float = attrs.field(validator=_positive)
    compute_efficiency: float = attrs.field(default=0.6, validator=_share)
    """Of the data sheet's FLOP/s, in matrix products and attention; :meth:`of` takes 0.45 for FP8."""
    memory_efficiency: float = attrs.field(default=0.75, validator=_share)
    """Of the data sheet's bandwidth."""
    overhead_s: float = attrs.field(default=1.5e-3, validator=config_number(least=0))
    """Scheduler and kernel launches of a pass; :meth:`of` takes 3 ms where GPUs have to agree after each layer."""
    s_per_request: float = attrs.field(default=1e-5, validator=config_number(least=0))
    """Sampling, and the book-keeping of a decoding request."""
    spread: float = attrs.field(default=0.4, validator=config_number(least=0))

    def __attrs_post_init__(self) -> None:
        if self.active_parameters > self.num_parameters:
            raise ConfigError(
                f"Roofline.active_parameters = {self.active_parameters:g} is above "
                f"Roofline.num_parameters = {self.num_parameters:g}: lower it"
            )
        if self.kv_memory_bytes <= 0:
            raise ConfigError(
                f"Roofline.weight_bytes = {self.weight_bytes:g} don't fit into "
                f"Roofline.memory_bytes = {self.memory_bytes:g}: take more GPUs or fewer bytes per parameter"
            )

    @classmethod
    def of(
        cls,
        *,
        gpu: str | Gpu,
        num_parameters: float,
        num_gpus: int = 1,
        bytes_per_parameter: float = 2.0,
        active_parameters: float | None = None,
        kv_bytes_per_token: float | None = None,
        attention_channels: float | None = None,
        **efficiencies: float,
    ) -> Roofline:
        """The roofline of ``num_gpus`` GPUs: one of :data:`~planner_core.perf.roofline.GPUS`, or one that isn't there.

        ``num_parameters`` = 8e9 for a model of "8B"; ``bytes_per_parameter`` 2 for BF16, 1 for FP8 (which computes in
        FP8 too), 0.5 for FP4. KV bytes and attention channels are guessed from the size if they aren't known.
        """
        sheet = _sheet(gpu) if isinstance(gpu, str) else gpu
        size = num_parameters / _AN_8B_MODEL["parameters"]
        flops = sheet.fp8_flops if bytes_per_parameter <= 1 else None
        efficiencies = {
            "compute_efficiency": 0.6 if flops is None else 0.45,
            "overhead_s": 1.5e-3 if num_gpus == 1 else 3e-3,
        } | efficiencies
        return cls(
            num_parameters=num_parameters,
            active_parameters=active_parameters or num_parameters,
            weight_bytes=num_parameters * bytes_per_parameter,
            kv_bytes_per_token=kv_bytes_per_token or _AN_8B_MODEL["kv_bytes_per_token"] * size**_KV_GROWTH,
            attention_channels=attention_channels
            or _AN_8B_MODEL["attention_channels"] * size**_CHANNELS_GROWTH,
            flops=num_gpus * (flops or sheet.bf16_flops),
            memory_bytes_per_s=num_gpus * sheet.memory_bytes_per_s,
            memory_bytes=num_gpus * sheet.memory_bytes,
            **efficiencies,
        )

    @property
    def kv_memory_bytes(self) -> float:
        """What 90 % of the memory leaves for the KV cache beside the weights."""
        return 0.9 * self.memory_bytes - self.weight_bytes

    @property
    def max_kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return int(self.kv_memory_bytes / self.kv_bytes_per_token)

    def parts_s(self, load: BatchLoad) -> tuple[Floats | float, Floats | float]:
        """The decodes as if they were alone, and what the prompts add to them."""
        tokens, requests = load.prefill_tokens, load.num_decode
        decodes = requests > 0
        flops = self.flops * self.compute_efficiency
        bandwidth = self.memory_bytes_per_s * self.memory_efficiency
        alone_s = decodes * self._dense_s(requests)
        decode_s = alone_s + decodes * (
            self.s_per_request * requests + (self.kv_bytes_per_token / bandwidth) * load.decode_kv_tokens
        )
        attention_s = (4 * self.attention_channels / flops) * load.prefill_pairs
        prefill_s = (tokens > 0) * (self._dense_s(tokens + requests) - alone_s + attention_s)
        return decode_s, prefill_s

    def _dense_s(self, tokens: Any) -> Any:
        """Overhead, weights and matrix products of a pass over so many tokens."""
        share = self.active_parameters / self.num_parameters
        met = 1.0 - (1.0 - share) ** np.maximum(tokens, 1.0) if share < 1 else 1.0
        reads_s = met * (self.weight_bytes / (self.memory_bytes_per_s * self.memory_efficiency))
        computes_s = tokens * (2 * self.active_parameters / (self.flops * self.compute_efficiency))
        return self.overhead_s + np.maximum(reads_s, computes_s)


def _sheet(gpu: str) -> Gpu:
    """By its name, however it is written: ``h100``, ``H100-SXM``, ``NVIDIA H100 80GB HBM3``, ``h100_sxm``."""
    name = gpu.lower().replace("_", "-").replace(" ", "-")
    found = [known for known in GPUS if f"-{known}-" in f"-{name}-"]
    if found:
        return GPUS[max(found, key=len)]
    near = difflib.get_close_matches(name, GPUS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"gpu = {gpu!r}: must be one of {', '.join(GPUS)}, or a Gpu{hint}")
