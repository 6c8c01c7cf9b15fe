"""ITL, and TTFT where prompts come in between, of a fleet of engines that decode in batches.

A decoding request gets a token in every pass, so a batch of n is a processor-sharing queue whose speed depends on n; in
an aggregated engine prompts lengthen the passes. Little's law ties the two together: a batch of n that makes o passes
each takes in n/o prompts per pass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import attrs
import numpy as np

from planner_core.config import EngineSpec
from planner_core.data.fpm import Floats
from planner_core.data.roles import Role
from planner_core.maths.delays import Delay, GammaWait, UniformWait
from planner_core.maths.in_turn import REGULAR, one_by_one, pool_of
from planner_core.maths.queueing import endless_passes
from planner_core.maths.shape import DEFAULT_NUM_SEQS, Iteration, RequestShape, chunk_tokens, prompt_s
from planner_core.perf import BatchLoad

NEAR = 3.0
"""The cost of one prompt more in a pass is measured between one mean prompt and this many."""
LITTLE = 0.05
"""More KV tokens by this share tell what they cost."""
MOST_ELASTIC = 0.9
"""A pass never grows faster than this power of its batch, where fluctuations would know no bound."""
LEAST_VARIED = 0.3
EVENED = 0.8
"""A router that balances tokens evens out what large fleets get: the work of a pass varies less, down to this share;
over many passes it nears that with the number of engines to the power of minus this. Fits to simulations of 1 to 64
engines."""
FILLED = 2.0
"""Arrivals in the whole fleet per pass and hole at which half of the holes are filled at once."""


class Steady(NamedTuple):
    """The steady state at some rates; arrays of shape (fleets,)."""

    batch: Floats
    """Mean number of requests that decode on an engine."""
    base_s: Floats
    """A pass of these alone."""
    slope_s: Floats
    """What one request more adds to it."""
    context_s: Floats
    """What one standard deviation of one request's context adds to it."""
    first_s: Floats
    more_s: Floats
    """What the first prompt adds to a pass, and each mean prompt."""


@attrs.frozen(kw_only=True, eq=False)
class BatchFleet:
    """Decode or aggregated engines of one kind and requests of one shape, at any rate and number of engines."""

    batch: Floats
    """1, 2, … up to the largest batch; the arrays below are over these."""
    base_s: Floats
    context_s: Floats
    first_s: Floats
    more_s: Floats
    pass_s: Floats
    """Mean duration of a pass, prompts included."""
    rps: Floats
    """Requests per second of an engine with this batch."""
    context_cv: float
    """Coefficient of variation of a running request's context."""
    limit: str
    """What bounds the largest batch: ``kv``, ``max_num_seqs`` or ``max_num_batched_tokens``."""
    iterations: float
    accept_length: float
    share: Floats
    passes: Floats
    """Classes of requests by the passes in which they decode."""
    prompt_share: Floats | None
    """Classes of requests by their prompts; ``None`` for a decode engine."""
    prompt_ratio: Floats
    """What a prompt adds to a pass as its only one, as a multiple of the mean: (lowest, mean, highest) of each class,
    shape (3, classes)."""
    prompt_second: float
    """Mean square of the work of a prompt, as a multiple of the mean's square."""
    dealt: float
    """Share of the requests that come to the engines in turn."""

    @classmethod
    def of(cls, role: Role, iteration: Iteration, spec: EngineSpec, shape: RequestShape) -> BatchFleet:
        seqs = float(spec.max_num_seqs or DEFAULT_NUM_SEQS)
        kv = math.inf if spec.max_kv_tokens is None else spec.max_kv_tokens / max(shape.context, 1.0)
        batch = np.arange(1.0, max(1, int(min(seqs, kv))) + 1.0)
        limit = "max_num_seqs" if kv > seqs else "kv"
        # An aggregated engine's last prompt pass brings the first token; a decode engine computes it once more.
        emitted = 1.0 if role is Role.AGG else 0.0
        iterations = max(((shape.osl or 2.0) - emitted) / shape.accept_length, 1.0)
        kv_tokens = batch * shape.context
        spread = shape.context_std / shape.context
        base_s, fuller_s = iteration(
            BatchLoad(num_decode=batch, decode_kv_tokens=kv_tokens * np.array([[1.0], [1 + LITTLE]]))
        )
        context_s = np.maximum(fuller_s - base_s, 0.0) * (spread / LITTLE) / batch
        lengths = shape.iteration_lengths
        per_pass = batch / iterations
        first_s = more_s = np.zeros_like(batch)
        prompt_share, ratio, second = None, np.zeros((3, 1)), 0.0
        if role is Role.AGG:
            chunk, fresh = chunk_tokens(spec), max(shape.fresh_isl, 1.0)
            fits = int(np.count_nonzero(per_pass * fresh + batch <= chunk))
            if fits < len(batch):
                limit, keep = "max_num_batched_tokens", max(fits, 1)
                batch, base_s, context_s, kv_tokens, per_pass = (
                    a[:keep] for a in (batch, base_s, context_s, kv_tokens, per_pass)
                )
            few = min(NEAR * fresh, chunk)
            one = min(fresh, few / 2)
            sizes = np.array([[one], [few]])
            one_s, few_s = iteration(
                BatchLoad(
                    prefill_tokens=sizes,
                    prefill_pairs=sizes * shape.pairs_per_token,
                    num_decode=batch,
                    decode_kv_tokens=kv_tokens,
                )
            )
            more_s = np.maximum(few_s - one_s, 0.0) * (fresh / (few - one))
            prompt_share, added_s, second = _prompt_classes(iteration, shape, chunk, float(base_s[0]))
            mean_s = float(added_s[1] @ prompt_share)
            ratio = added_s / mean_s
            beside = np.maximum(one_s - base_s, 1e-9)  # what a prompt adds depends on the batch
            first_s = np.maximum(mean_s * beside / beside[0] - more_s, 0.0)
        some = (1 - shape.dealt) * -np.expm1(-per_pass) + shape.dealt * np.minimum(per_pass, 1.0)
        pass_s = base_s + first_s * some + per_pass * more_s
        return cls(
            batch=batch,
            base_s=base_s,
            context_s=context_s,
            first_s=first_s,
            more_s=more_s,
            pass_s=pass_s,
            rps=np.maximum.accumulate(per_pass / pass_s),
            context_cv=spread,
            limit=limit,
            iterations=iterations,
            accept_length=shape.accept_length,
            share=lengths.share,
            passes=np.maximum(lengths.tokens, 1.0),
            prompt_share=prompt_share,
            prompt_ratio=ratio,
            prompt_second=second,
            dealt=shape.dealt,
        )

    @property
    def saturated_rps(self) -> float:
        """Requests per second of one engine with its largest batch."""
        return float(self.rps[-1])

    def batch_within(self, itl_ms: float) -> float:
        """The largest batch whose passes take no longer, prompts included; at least 1."""
        return max(1.0, float(np.count_nonzero(self.pass_s * (1e3 / self.accept_length) <= itl_ms)))

    @property
    def lone_ttft(self) -> Delay | None:
        """TTFT of a request all by itself; ``None`` for a decode engine."""
        if self.prompt_share is None:
            return None
        low_s, own_s, high_s = self.base_s[0] + (self.first_s[0] + self.more_s[0]) * self.prompt_ratio
        return Delay(share=self.prompt_share, own_s=own_s, low_s=low_s, high_s=high_s, waits=())

    @property
    def lone_itl_s(self) -> float:
        """ITL of a request all by itself."""
        return float(self.base_s[0]) / self.accept_length

    def steady(self, engine_rps: Floats) -> Steady:
        """The batch that keeps up with this rate, and what its passes take."""
        first = self.rps[0]
        batch = np.where(engine_rps < first, engine_rps / first, np.interp(engine_rps, self.rps, self.batch))
        return self._at(batch)

    def _at(self, batch: Floats) -> Steady:
        upper = np.minimum(batch * 1.15 + 1, self.batch[-1])
        base, above = np.interp(batch, self.batch, self.base_s), np.interp(upper, self.batch, self.base_s)
        return Steady(
            batch=batch,
            base_s=base,
            slope_s=(above - base) / np.maximum(upper - batch, 1e-9),
            context_s=np.interp(batch, self.batch, self.context_s),
            first_s=np.interp(batch, self.batch, self.first_s),
            more_s=np.interp(batch, self.batch, self.more_s),
        )

    def latencies(self, engine_rps: Floats, engines: Floats) -> tuple[Delay | None, Delay, Floats]:
        """(TTFT, ITL, P(the batch would outgrow the engine)) at rates below saturation; shapes (fleets,).

        Batch: arrivals are Poisson and a request needs o passes whatever their duration, so the number on all N engines
        is that of a processor-sharing queue, insensitive to the distribution of o (Cohen 1979; Kelly 1979): with
        n* = λ·o·S(n*) per engine and elasticity η = n*·S'(n*)/S(n*), the birth–death chain's logarithm curves by
        (1/n* − S'/S)/N, so the batch of an engine that has its even share varies by n*/((1 − η)·N). Contexts differ,
        which counts as much again as they vary.

        ITL: the mean over the passes of one request. A token takes E[n]/(λ·o) by Little's law, and as n/S(n) is
        concave, E[n] exceeds n* by Var(n)·S'/S: requests see the larger batches more often. The batch's part of its
        variance is averaged over its stay, in which it is forgotten at the rate (1 − η) per mean stay: by
        2(y − 1 + e^(−y))/y² with y = (1 − η)·passes/mean passes. The prompts' part is that of a busy period: o passes
        that grow by the work they let in are a first passage of o·d + work(t) = t, with variance
        o·Var(work in a pass)/(1 − ρ)² (Prabhu, Queues and Inventories, 1965).
        """
        s, shared = self.steady(engine_rps), pool_of(engines, self.dealt)
        if self.prompt_share is not None:
            s = self._at(self._shared(engine_rps, engines, s))
        rho = np.minimum(engine_rps * s.more_s, 0.99)
        second = self.prompt_second * s.more_s**2
        ttft, growth, mean_s, per_pass_variance = None, rho, s.base_s, np.zeros_like(rho)
        if self.prompt_share is not None:
            ttft, mean_s, growth, per_pass_variance = self._prompts(
                engine_rps,
                s,
                rho,
                second * (LEAST_VARIED + (1 - LEAST_VARIED) / shared),
                LEAST_VARIED + shared**-EVENED,
                engines,
            )
        slope = s.slope_s / (1 - growth)
        eta = np.minimum(s.batch * slope / mean_s, MOST_ELASTIC)
        batch_variance = s.batch / (1 - eta) / self._pool(engines)
        stay = np.maximum((1 - eta)[:, None] * self.passes / self.iterations, 1e-6)
        kept = 2 * (stay + np.expm1(-stay)) / stay**2
        contexts = (s.context_s / (1 - growth)) ** 2
        # A router that balances tokens lets engines differ in requests as much as contexts differ.
        by_number = np.maximum(slope - s.context_s / max(self.context_cv, 1e-9) / (1 - growth), 0.0)
        differ = self.context_cv**2 * (1 - self.dealt) * (1 - 1 / engines)
        uneven = by_number**2 * s.batch * differ
        seen = s.batch + batch_variance / np.maximum(s.batch, 1e-9)
        mean_s = mean_s + slope * (np.maximum(seen, 1.0) - np.maximum(s.batch, 1.0))
        mean_s = mean_s + by_number * np.minimum(s.batch, 1.0) * differ
        of_batch = (slope**2 + contexts) * batch_variance + uneven
        of_prompts = per_pass_variance[:, None] / self.passes
        least_s = np.minimum(np.interp(s.batch / 2, self.batch, self.base_s), 0.98 * mean_s)
        per_token = 1 / self.accept_length
        above = _column(mean_s - least_s) * per_token
        if self.prompt_share is not None:
            after_s, met = self._behind_own_prompt(engine_rps, engines, s, mean_s, growth)
            above = np.maximum(above + after_s / self.passes * per_token, 0.0)
            of_prompts = of_prompts * met
        variance = of_batch[:, None] * kept + of_prompts
        least = _column(least_s) * per_token
        itl = Delay(
            share=self.share,
            own_s=np.zeros((1, 1)),
            low_s=np.zeros((1, 1)),
            high_s=np.zeros((1, 1)),
            waits=((np.ones((1, 1)), GammaWait(least, above, variance * per_token**2)),),
        )
        room = (self.batch[-1] + 0.5 - s.batch) / np.sqrt(2 * np.maximum(batch_variance, 1e-12))
        return ttft, itl, _normal_tail(room)

    def _pool(self, engines: Floats) -> Floats:
        """So many engines share their luck. Prompts make what is dealt in turn as uneven as chance would."""
        return pool_of(engines, self.dealt if self.prompt_share is None else self.dealt / REGULAR)

    def _refill(self, arriving: Floats, engines: Floats) -> Floats:
        """Share of the prompts that fill a hole together with others; ``arriving``: in the fleet, per pass."""
        others = arriving * (1 - 1 / engines)
        share: Floats = (1 - self.dealt) * others / (others + FILLED * self.prompt_second)
        return share

    def _saved_s(self, s: Steady, per_pass: Floats, refill: Floats, singly: Any) -> Floats:
        """What a pass is shorter than reckoned: prompts that fill holes together share what the first one costs.

        ``singly``: how many more passes are without a prompt than reckoned, where they come in turn.
        """
        clump = 1 + (self.prompt_second - 1) * refill
        clumped = np.exp(-per_pass / clump) - np.exp(-per_pass)
        saved: Floats = s.first_s * ((1 - self.dealt) * clumped + self.dealt * singly)
        return saved

    def _shared(self, engine_rps: Floats, engines: Floats, s: Steady) -> Floats:
        """The batch, where prompts that come together share what the first one of a pass costs."""
        per_pass = s.batch / self.iterations
        pass_s = per_pass / np.maximum(engine_rps, 1e-300)
        refill = self._refill(per_pass * engines, engines)
        singly = one_by_one(engines, per_pass)[0] - np.maximum(1 - per_pass, 0.0) if self.dealt else 0.0
        saved_s = self._saved_s(s, per_pass, refill, singly)
        elasticity = np.minimum(s.batch * s.slope_s / pass_s, MOST_ELASTIC)
        shared: Floats = s.batch * np.maximum(1 - saved_s / pass_s / (1 - elasticity), 0.1)
        return shared

    def _behind_own_prompt(
        self, engine_rps: Floats, engines: Floats, s: Steady, mean_s: Floats, growth: Floats
    ) -> tuple[Floats, Any]:
        """(By how much a request decodes longer than its passes at a random moment take; which share it meets of the
        prompts that come in such a time); shapes (fleets, classes), or what broadcasts to them.

        Behind its own prompt comes what arrived meanwhile, and what arrived during that, unless others took it. Where
        prompts come in turn, the next one is long in coming instead: after a renewal fewer follow in any time than on
        average, by (1 − c²)/2 in the long run (Cox, Renewal Theory, 1962), with c² = 1/N.
        """
        prompt_s = _column(s.first_s + s.more_s)
        after_s = prompt_s * _column(growth / (1 - growth) / engines)
        if not self.dealt:
            return after_s, 1.0
        usual = np.maximum(_column(engine_rps * mean_s) * self.passes, 1e-9)
        at_most = _column(np.maximum(self.dealt * (1 - 1 / engines) / 2, 1e-9))
        spared = -at_most * np.expm1(-usual / at_most)
        return after_s - prompt_s * spared, 1 - spared / usual

    def _prompts(
        self,
        engine_rps: Floats,
        s: Steady,
        rho: Floats,
        second: Floats,
        varied: Floats,
        engines: Floats,
    ) -> tuple[Delay, Floats, Floats, Floats]:
        """(TTFT, mean pass, by how much of itself a longer pass lengthens the next, variance of the work in a pass)."""
        passes, mixed = endless_passes(engine_rps, s.base_s, s.first_s, second, rho)
        empty = passes.empty
        without = np.minimum(empty * s.base_s / passes.mean_s, 1.0)  # of the time: passes without a prompt
        alone = without * np.exp(-engine_rps * s.base_s)
        serving = -np.expm1(-s.batch)
        refill = self._refill(engine_rps * engines * passes.mean_s, engines)
        per_pass = engine_rps * passes.mean_s
        none, fewer = one_by_one(engines, per_pass) if self.dealt else (empty, empty)
        saved_s = self._saved_s(s, per_pass, refill, none - empty)
        grown = rho + self.dealt * engine_rps * s.first_s
        mean_s = passes.mean_s - saved_s / np.maximum(1 - grown, 0.03)
        full_second = self.prompt_second * s.more_s**2
        mates_s = (self.prompt_second - 1) * s.more_s
        pass_variance = s.first_s**2 * empty * (1 - empty) + per_pass * full_second
        low_s, own_s, high_s = (
            s.base_s[:, None] + (s.first_s + s.more_s)[:, None] * ratio for ratio in self.prompt_ratio
        )
        assert self.prompt_share is not None
        at_random = serving * (1 - refill)
        ttft = Delay(
            share=self.prompt_share,
            own_s=own_s,
            low_s=low_s,
            high_s=high_s,
            waits=(
                (_column(at_random * alone), UniformWait(0.0, _column(s.base_s), None)),
                (
                    _column(at_random * (without - alone)),
                    UniformWait(0.0, _column(s.base_s), _column(s.more_s)),
                ),
                (
                    _column(at_random * (1 - without)),
                    GammaWait(0.0, _column(mixed.wait_s), _column(mixed.wait_variance)),
                ),
                (
                    _column(serving * refill),
                    GammaWait(
                        _column(s.base_s),
                        _column(mean_s - s.base_s + mates_s),
                        _column(pass_variance + mates_s**2),
                    ),
                ),
            ),
        )
        growing = s.first_s * engine_rps * ((1 - self.dealt) * empty + self.dealt * fewer)
        growth = np.minimum(rho + growing, 0.97)
        work_variance = pass_variance + 2 * s.first_s * s.more_s * per_pass * empty
        return ttft, mean_s, growth, varied * work_variance / (1 - growth) ** 2


def _prompt_classes(
    iteration: Iteration, shape: RequestShape, chunk: float, lone_s: float
) -> tuple[Floats, Floats, float]:
    """(Shares of the classes of prompts; what the shortest, the mean and the longest of each add to a lone request's
    pass of ``lone_s`` as the only prompt, shape (3, classes); mean square of a prompt's work, relative to the mean's).
    """
    lengths = shape.fresh_lengths
    num = len(lengths.share)
    sizes = np.concatenate(([1.0], lengths.low, lengths.tokens, lengths.high))
    passes = np.maximum(np.ceil(sizes / chunk), 1.0)
    seconds = prompt_s(iteration, sizes, shape, chunk, 1.0, shape.context) - passes * lone_s
    added_s = np.maximum(seconds[1:], 1e-9).reshape(3, num)
    np.maximum.accumulate(added_s, axis=0, out=added_s)
    work_s = np.maximum(added_s[1] - seconds[0], 1e-9)
    second = float(work_s**2 @ lengths.share) / float(work_s @ lengths.share) ** 2
    return lengths.share, added_s, second


def _normal_tail(z_over_root_two: Floats) -> Floats:
    from scipy.special import erfc

    tail: Floats = erfc(z_over_root_two) / 2
    return tail


def _column(values: Any) -> Any:
    return np.asarray(values)[:, None]
