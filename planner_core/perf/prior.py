"""What is known of an engine before it has run: models that say how long a pass takes, and learn nothing."""

from __future__ import annotations

import abc
from typing import Any, Protocol, TypeVar

import attrs

from planner_core.data.checks import config_number
from planner_core.data.fpm import Floats, FpmBatch
from planner_core.perf.protocol import BatchLoad, Estimate

S = TypeVar("S")


class Prior(Protocol):
    """A performance model that knows beforehand, and tells the two parts of a pass apart."""

    @property
    def spread(self) -> float:
        """Standard deviation of the duration, relative to it."""
        ...

    def init(self) -> tuple[()]:
        """Nothing is learned, so nothing is remembered."""
        ...

    def observe(self, state: S, batch: FpmBatch) -> S:
        """The state, as it is."""
        ...

    def iteration_s(self, state: tuple[()], load: BatchLoad) -> Estimate:
        """How long passes with this work would take: the sum of both parts."""
        ...

    def parts_s(self, load: BatchLoad) -> tuple[Floats | float, Floats | float]:
        """Seconds for the decodes of a pass, and what its prompts add to that; 0 where there are none."""
        ...


@attrs.frozen(kw_only=True)
class Known(abc.ABC):
    """Makes a performance model of :meth:`parts_s`, which a subclass gives."""

    spread: float = attrs.field(default=0.1, validator=config_number(least=0))
    """Standard deviation of the duration, relative to it."""

    def init(self) -> tuple[()]:
        """Nothing is learned, so nothing is remembered."""
        return ()

    def observe(self, state: S, batch: FpmBatch) -> S:
        """The state, as it is."""
        return state

    def iteration_s(self, state: tuple[()], load: BatchLoad) -> Estimate:
        """Mean and spread of the duration."""
        decode_s, prefill_s = self.parts_s(load)
        mean_s = decode_s + prefill_s
        return Estimate(mean_s=mean_s, std_s=self.spread * mean_s)

    def knowledge(self, state: tuple[()]) -> tuple[()]:
        """Nothing but the model itself."""
        return state

    @abc.abstractmethod
    def parts_s(self, load: BatchLoad) -> tuple[Floats | float, Floats | float]:
        """Seconds for the decodes of a pass, and what its prompts add to that; 0 where there are none."""


_cost = config_number(least=0)


@attrs.frozen(kw_only=True)
class Coefficients(Known):
    """A few numbers: what a pass costs, and what each kind of work adds to it."""

    overhead_s: float = attrs.field(validator=config_number(above=0))
    """A pass with next to no work: the weights are read all the same."""
    s_per_prefill_token: float = attrs.field(default=0.0, validator=_cost)
    s_per_prefill_pair: float = attrs.field(default=0.0, validator=_cost)
    """Per attention pair of the prompts."""
    s_per_decode_request: float = attrs.field(default=0.0, validator=_cost)
    s_per_decode_kv_token: float = attrs.field(default=0.0, validator=_cost)
    prefill_overhead_s: float = attrs.field(default=0.0, validator=_cost)
    """What any prompt adds to a pass: without CUDA graphs, or with the front end's share in a measured TTFT."""

    def parts_s(self, load: BatchLoad) -> tuple[Floats | float, Floats | float]:
        """Both linear; a mixed pass has one overhead."""
        tokens, requests = load.prefill_tokens, load.num_decode
        decodes = requests > 0
        decode_s: Any = decodes * (
            self.overhead_s
            + self.s_per_decode_request * requests
            + self.s_per_decode_kv_token * load.decode_kv_tokens
        )
        prefill_s: Any = (tokens > 0) * (
            self.overhead_s * (1.0 - decodes)
            + self.prefill_overhead_s
            + self.s_per_prefill_token * tokens
            + self.s_per_prefill_pair * load.prefill_pairs
        )
        return decode_s, prefill_s
