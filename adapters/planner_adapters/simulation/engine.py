"""One continuous-batching engine, with the scheduling rules of vLLM v1, simulated event by event.

Before each pass the scheduler serves the running requests first (one token for each that decodes, then the
next chunk of the prompt that is under way), then admits waiting ones, first come first served, while
``max_num_batched_tokens``, ``max_num_seqs`` and the KV cache have room. A prompt gets its blocks when it is
admitted. When the cache can't hold the next token of every running request, the last admitted one loses its
blocks, returns to the head of the queue and is computed again; nothing is admitted in that pass. A prompt's
first token comes out of the pass that computes its last chunk.

Passes that decode only, with nobody to admit, are one :class:`Stretch`: so the cost grows with arrivals,
chunks, completions and preemptions, not with tokens.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush

from planner_adapters.simulation.decode_batch import DecodeBatch
from planner_adapters.simulation.model import EngineModel
from planner_adapters.simulation.request import Request
from planner_adapters.simulation.stretch import Stretch
from planner_adapters.simulation.telemetry import PassRecord, Tally
from planner_adapters.simulation.timing import PassTimer

KEPT_PASSES = 10
HEARTBEAT_S = 1.0


class Engine:
    """An engine that starts with its KV cache empty.

    ``hands_over``: a prefill engine, done with a request when its prompt is computed; what goes on to a decode
    engine has its KV cache held until :meth:`release`. ``timer`` may be shared by the engines of one model. The
    owner calls :meth:`step` whenever :attr:`next_event_s` has come, and looks at it again after each call, as
    every call may change it.
    """

    def __init__(
        self, model: EngineModel, *, hands_over: bool = False, timer: PassTimer | None = None
    ) -> None:
        self.model = model
        self.next_event_s = math.inf
        self._hands_over = hands_over
        self._timer = timer or PassTimer(model.timing)
        self._waiting: deque[Request] = deque()
        self._queued_prefill, self._queued_decode = Tally(), Tally()
        self._running: dict[int, Request] = {}  # in order of admission, by serial
        self._admissions = 0
        self._partial: Request | None = None  # the prompt of which chunks are computed but not all
        self._decoding = DecodeBatch(model.kv_block_tokens)
        self._ends: list[tuple[int, int, Request]] = []  # (iteration of the last token, serial, request)
        self._prompt_blocks = 0  # of the prompt under way
        self._held_blocks = 0  # of prompts that wait to be handed over
        self._num_held = 0
        self._stretch: Stretch | None = None
        self._chunks: list[tuple[Request, int]] = []  # of the pass under way
        self._firsts: list[
            Request
        ] = []  # whose first token the next pass brings, though their prompt was computed
        self._pass_start_s = 0.0
        self._idle_since_s = 0.0
        self._passes: deque[PassRecord] = deque(maxlen=KEPT_PASSES)
        self._told_passes = 0  # of the stretch under way

    # What the owner does

    def submit(self, request: Request, now_s: float) -> None:
        """Queues a request. It may join from the next pass on; an idle engine begins at once."""
        blocked = bool(self._waiting)
        self._waiting.append(request)
        self._count_waiting(request, 1)
        if self.next_event_s == math.inf:
            self.next_event_s = now_s
        elif self._stretch is not None and not blocked and len(self._running) < self.model.max_num_seqs:
            self._stretch.cut(now_s)
            self.next_event_s = self._stretch.end_s(self._stretch.passes)

    def step(self, now_s: float) -> list[Request]:
        """Ends the pass that is over at ``now_s``, begins the next; returns the requests done here by it."""
        done: list[Request] = []
        stretch = self._stretch
        if stretch is not None:
            self._stretch = None
            self._decoding.iteration += stretch.passes
            if self._told_passes < stretch.passes:
                self._passes.append(self._stretch_record(stretch, stretch.passes, ahead=-1))
        elif self._chunks:
            if not self._told_passes:
                self._passes.append(self._chunks_record(now_s))
            self._decoding.iteration += 1
            self._end_chunks(now_s, done)
        self._end_decodes(now_s, done)
        self._begin(now_s)
        return done

    def release(self, request: Request, now_s: float) -> None:
        """Frees the KV cache of a request that is handed over."""
        self._held_blocks -= request.blocks
        self._num_held -= 1
        request.blocks = 0
        if self._waiting and self.next_event_s == math.inf:
            self.next_event_s = now_s

    # What the owner may know

    @property
    def num_requests(self) -> int:
        """Requests here: waiting, running, or held until they are handed over."""
        return len(self._waiting) + len(self._running) + self._num_held

    @property
    def num_waiting(self) -> int:
        """Requests not admitted, preempted ones among them."""
        return len(self._waiting)

    def next_pass_s(self, now_s: float) -> float:
        """When the scheduler looks next at what there is: at the end of the pass under way, or now."""
        if self._stretch is not None:
            return self._stretch.end_s(min(self._stretch.passes_by(now_s) + 1, self._stretch.passes))
        return self.next_event_s if self._chunks else now_s

    @property
    def load_tokens(self) -> int:
        """Work in tokens as a router sees it: prompts that wait, and contexts in the cache when it last
        changed.
        """
        queued = self._queued_prefill.tokens + self._queued_decode.tokens
        return queued + self._decoding.kv_tokens() + self._prompt_blocks * self.model.kv_block_tokens

    @property
    def kv_blocks_used(self) -> int:
        """Blocks taken at the end of the last pass."""
        return self._prompt_blocks + self._held_blocks + self._decoding.blocks()

    def take_passes(self, now_s: float) -> list[PassRecord]:
        """Up to ten passes since the last call, the latest last; a stretch of decode passes counts as one.

        Never empty: without a finished pass to tell of, the one under way is told; an engine that has been
        idle for a second gives a heartbeat (``wall_time_s`` 0).
        """
        records = list(self._passes)
        self._passes.clear()
        if self._stretch is not None:
            over = self._stretch.passes_by(now_s)
            if over > self._told_passes or not records:
                number = max(over, 1)
                records.append(self._stretch_record(self._stretch, number, ahead=number - 1))
                self._told_passes = number
        elif self._chunks:
            if not records:
                records.append(self._chunks_record(self.next_event_s))
                self._told_passes = 1
        elif not records or now_s - self._idle_since_s >= HEARTBEAT_S:
            records.append(PassRecord(0.0, *(0,) * 7, *self._queue_figures()))
        return records[-KEPT_PASSES:]

    # How a pass ends

    def _end_chunks(self, now_s: float, done: list[Request]) -> None:
        for request, tokens in self._chunks:
            request.computed_tokens += tokens
            if request.computed_tokens < request.context_tokens:
                self._partial = request
                continue
            context_tokens = request.context_tokens
            if not self._hands_over or self.model.prefill_emits_first_token:
                request.emitted_tokens += 1
                if math.isnan(request.first_token_s):
                    request.first_token_s = now_s
            self._prompt_blocks -= request.blocks
            if request.emitted_tokens >= request.output_tokens:
                request.finish_s = now_s
                self._leave(request, done)
            elif self._hands_over:
                self._held_blocks += request.blocks
                self._num_held += 1
                self._leave(request, done)
            else:
                self._decode_from(request, context_tokens)
        self._chunks = []

    def _end_decodes(self, now_s: float, done: list[Request]) -> None:
        ends, iteration = self._ends, self._decoding.iteration
        while ends and ends[0][0] <= iteration:
            _, serial, request = heappop(ends)
            if request.serial == serial and request.base is not None:
                self._decoding.leave(request.base)
                request.base = None
                request.emitted_tokens = request.output_tokens
                request.finish_s = now_s
                self._leave(request, done)

    def _leave(self, request: Request, done: list[Request]) -> None:
        del self._running[request.serial]
        request.serial = -1
        done.append(request)

    def _decode_from(self, request: Request, context_tokens: int) -> None:
        request.base = self._decoding.join(context_tokens)
        left = request.output_tokens - request.emitted_tokens
        heappush(self._ends, (self._decoding.iteration + left, request.serial, request))

    # How a pass begins

    def _begin(self, now_s: float) -> None:
        preempted = self._preempted_to_fit()
        if not preempted:
            self._admit()
        decoding = self._decoding
        num_decode = decoding.num_requests
        self._told_passes = 0
        if self._chunks:
            self._pass_start_s = now_s
            tokens, pairs = 0, 0.0
            for request, chunk in self._chunks:
                tokens += chunk
                pairs += chunk * (request.computed_tokens + chunk / 2)
            self.next_event_s = now_s + self._timer.pass_s(tokens, pairs, num_decode, decoding.kv_tokens())
            self._note_firsts(self.next_event_s)
        elif num_decode:
            self._stretch = self._stretch_from(now_s, at_most=1 if preempted else None)
            self.next_event_s = self._stretch.end_s(self._stretch.passes)
            self._note_firsts(self._stretch.end_s(1))
        else:
            self.next_event_s = math.inf
            self._idle_since_s = now_s

    def _note_firsts(self, at_s: float) -> None:
        for request in self._firsts:
            request.first_token_s = at_s
        self._firsts.clear()

    def _preempted_to_fit(self) -> bool:
        """Preempts from the last admitted on until every running request's next token fits."""
        preempted = False
        while self._decoding.num_requests and self._free_blocks() < 0:
            _, request = self._running.popitem()
            request.serial = -1
            if request.base is not None:
                request.emitted_tokens = self._decoding.leave(request.base) - request.input_tokens + 1
                request.base = None
            else:
                self._prompt_blocks -= request.blocks
                self._partial = None
            self._waiting.appendleft(request)
            self._count_waiting(request, 1)
            request.kv_ready = False
            preempted = True
        return preempted

    def _free_blocks(self) -> int:
        """Blocks left when every decoding request has had its next token."""
        return self.model.kv_blocks - self._prompt_blocks - self._held_blocks - self._decoding.blocks(ahead=1)

    def _admit(self) -> None:
        budget = self.model.max_num_batched_tokens - self._decoding.num_requests
        if self._partial is not None:
            budget -= self._add_chunk(self._partial, budget)
            self._partial = None
        waiting, running, block_tokens = self._waiting, self._running, self.model.kv_block_tokens
        if not waiting or budget <= 0:
            return
        free = self._free_blocks()
        while waiting and budget > 0 and len(running) < self.model.max_num_seqs:
            request = waiting[0]
            blocks = -(-request.context_tokens // block_tokens)
            if blocks > free:
                break
            free -= blocks
            waiting.popleft()
            self._count_waiting(request, -1)
            request.serial = self._admissions
            self._admissions += 1
            running[request.serial] = request
            if request.kv_ready:
                self._decode_from(request, request.context_tokens - 1)
                if math.isnan(request.first_token_s):
                    self._firsts.append(request)
                budget -= 1
            else:
                request.blocks = blocks
                self._prompt_blocks += blocks
                request.computed_tokens = request.prefix_hit_tokens
                budget -= self._add_chunk(request, budget)

    def _add_chunk(self, request: Request, budget: int) -> int:
        tokens = min(budget, request.context_tokens - request.computed_tokens)
        self._chunks.append((request, tokens))
        return tokens

    def _stretch_from(self, now_s: float, at_most: int | None) -> Stretch:
        """Decode passes until a request ends, the cache is full, or the timing takes another line."""
        decoding = self._decoding
        n, kv_tokens = decoding.num_requests, decoding.kv_tokens()
        while self._ends[0][2].serial != self._ends[0][1]:  # preempted since
            heappop(self._ends)
        base_s, s_per_token, until = self._timer.decode_line(n, kv_tokens)
        passes = at_most or self._ends[0][0] - decoding.iteration
        if until - kv_tokens < passes * n:
            passes = min(passes, int((until - kv_tokens) / n) + 1)
        blocks = self.model.kv_blocks - self._prompt_blocks - self._held_blocks
        passes = decoding.passes_within(blocks, passes)
        return Stretch(now_s, base_s + s_per_token * kv_tokens, s_per_token * n, passes)

    # How the engine tells of itself

    def _count_waiting(self, request: Request, step: int) -> None:
        is_decode = request.kv_ready or request.emitted_tokens
        tally = self._queued_decode if is_decode else self._queued_prefill
        tally.count(request.context_tokens, step)

    def _queue_figures(self) -> tuple[int, int, float, int, int, float]:
        return *self._queued_prefill.figures(), *self._queued_decode.figures()

    def _decode_figures(self, ahead: int = 0) -> tuple[int, int, float]:
        decoding = self._decoding
        return decoding.num_requests, decoding.kv_tokens(ahead), decoding.variance()

    def _stretch_record(self, stretch: Stretch, number: int, ahead: int) -> PassRecord:
        return PassRecord(
            stretch.pass_s(number), 0, 0, 0, 0.0, *self._decode_figures(ahead), *self._queue_figures()
        )

    def _chunks_record(self, end_s: float) -> PassRecord:
        prompts = Tally()
        tokens = cached = 0
        for request, chunk in self._chunks:
            tokens += chunk
            cached += request.computed_tokens
            prompts.count(request.context_tokens, 1)
        number, _, variance = prompts.figures()
        wall_time_s = end_s - self._pass_start_s
        prefill = (number, tokens, cached, variance)
        return PassRecord(wall_time_s, *prefill, *self._decode_figures(), *self._queue_figures())
