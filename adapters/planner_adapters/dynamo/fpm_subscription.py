"""Passes from the engines that publish them on ZMQ: the latest of each, in bounded memory, whatever they send."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from planner_adapters.dynamo.fpm import MOST_BYTES, FpmError, decode
from planner_core import ConfigError, ForwardPassMetrics, FpmBatch, MissingExtraError, PlannerConfig, Role
from planner_core.data.checks import config_number

if TYPE_CHECKING:
    import zmq
    import zmq.asyncio

Clock: TypeAlias = Callable[[], float]


@attrs.frozen(kw_only=True)
class Publisher:
    """Where one engine, or a broker for many, publishes."""

    endpoint: str
    """Such as ``tcp://10.0.0.7:20380``."""
    role: Role


Publishers: TypeAlias = Iterable[Publisher] | Callable[[], Iterable[Publisher]]


@attrs.frozen(kw_only=True)
class FpmOptions:
    """Bounds of what is kept."""

    passes_per_engine: int = attrs.field(default=256, validator=config_number(whole=True, least=1))
    """Between two calls; of more, the latest are kept."""
    max_engines: int = attrs.field(default=20_000, validator=config_number(whole=True, least=1))
    """Of one role; messages of further engines are refused."""
    expire_after_s: float = attrs.field(default=30.0, validator=config_number(above=0))
    """An engine that is silent for longer is gone: idle ones send a heartbeat every second."""
    stuck_after_s: float = attrs.field(default=600.0, validator=config_number(above=0))
    """A queue that stands in nothing but equal heartbeats for so long no longer counts."""


Engine: TypeAlias = tuple[str, int]


class _Heard:
    """What the engines of one role have said since it was last taken."""

    def __init__(self, options: FpmOptions) -> None:
        self._options = options
        self.passes: dict[Engine, deque[ForwardPassMetrics]] = {}
        self.at_s: dict[Engine, float] = {}
        self._same: dict[Engine, tuple[ForwardPassMetrics, float]] = {}
        """The latest message that was unlike the one before, and when it came."""

    def add(self, record: ForwardPassMetrics, now_s: float) -> bool:
        """Whether there was room without losing something."""
        engine = (record.worker_id, record.dp_rank)
        if engine not in self.at_s and len(self.at_s) >= self._options.max_engines:
            return False
        self.at_s[engine] = now_s
        same, since_s = self._same.get(engine, (None, now_s))
        if same != record:
            self._same[engine] = (record, now_s)
        elif record.wall_time_s == 0 and now_s - since_s >= self._options.stuck_after_s:
            record = ForwardPassMetrics(worker_id=record.worker_id, dp_rank=record.dp_rank, wall_time_s=0.0)
        kept = self.passes.setdefault(engine, deque(maxlen=self._options.passes_per_engine))
        full = len(kept) == self._options.passes_per_engine
        kept.append(record)
        return not full

    def take(self, now_s: float) -> list[ForwardPassMetrics]:
        """All of it, oldest first within each engine; engines that are silent for too long are forgotten."""
        taken, self.passes = self.passes, {}
        oldest_s = now_s - self._options.expire_after_s
        self.at_s = {engine: at_s for engine, at_s in self.at_s.items() if at_s >= oldest_s}
        self._same = {engine: same for engine, same in self._same.items() if engine in self.at_s}
        return [record for records in taken.values() for record in records]


class FpmSubscription:
    """A :class:`~planner_adapters.environment.PassSource` over publishers. It listens from the first call on.

    ``refused`` counts messages that could not be used, by reason; ``dropped`` those that fell to a flood.
    """

    def __init__(self, publishers: Publishers, options: FpmOptions, clock: Clock) -> None:
        self._zmq = _guest()
        self._publishers, self._options, self._clock = publishers, options, clock
        self._context: zmq.asyncio.Context | None = None
        self._sockets: dict[Role, Any] = {}
        self._connected: dict[Role, set[str]] = {role: set() for role in Role}
        self._heard = {role: _Heard(options) for role in Role}
        self._tasks: list[asyncio.Task[None]] = []
        self.refused: Counter[str] = Counter()
        self.dropped = 0
        self.last_refusal: str | None = None

    async def start(self) -> None:
        """Connects to the publishers there are, and listens. :meth:`passes` does it too."""
        wanted: dict[Role, set[str]] = {}
        for publisher in self._publishers() if callable(self._publishers) else self._publishers:
            wanted.setdefault(publisher.role, set()).add(publisher.endpoint)
        for role in {*wanted, *self._sockets}:
            self._connect(role, wanted.get(role, set()))

    async def passes(self) -> dict[Role, FpmBatch]:
        """The passes since the last call; engines that said nothing are left out."""
        await self.start()
        now_s = self._clock()
        taken = {role: self._heard[role].take(now_s) for role in Role}
        return {role: FpmBatch.of(records) for role, records in taken.items() if records}

    @property
    def num_kept(self) -> int:
        """Passes that wait to be taken."""
        return sum(len(kept) for heard in self._heard.values() for kept in heard.passes.values())

    def engines(self, role: Role) -> list[Engine]:
        """Workers and ranks that have been heard lately."""
        oldest_s = self._clock() - self._options.expire_after_s
        return [engine for engine, at_s in self._heard[role].at_s.items() if at_s >= oldest_s]

    def _connect(self, role: Role, wanted: set[str]) -> None:
        if role not in self._sockets:
            zmq = self._zmq
            self._context = self._context or zmq.asyncio.Context()
            socket = self._context.socket(zmq.SUB)
            socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
            socket.setsockopt(zmq.RCVHWM, self._options.passes_per_engine)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            self._sockets[role] = socket
            self._tasks.append(asyncio.create_task(self._listen(role, socket)))
        socket, connected = self._sockets[role], self._connected[role]
        for endpoint in wanted - connected:
            try:
                socket.connect(endpoint)
            except self._zmq.ZMQError as error:
                self._refuse("endpoint", f"{endpoint}: {error}")
                continue
            connected.add(endpoint)
        for endpoint in connected - wanted:
            with contextlib.suppress(self._zmq.ZMQError):  # it may have gone by itself
                socket.disconnect(endpoint)
            connected.discard(endpoint)

    async def _listen(self, role: Role, socket: Any) -> None:
        """Reads in gulps: a future for each of a hundred thousand messages would cost more than the messages."""
        raw = self._zmq.Socket(socket)
        heard = self._heard[role]
        while True:
            await socket.poll()
            now_s = self._clock()
            with contextlib.suppress(self._zmq.Again):
                for _ in range(1000):
                    self._take(heard, raw.recv_multipart(self._zmq.NOBLOCK), now_s)
            await asyncio.sleep(0)

    def _take(self, heard: _Heard, frames: list[bytes], now_s: float) -> None:
        try:
            self.dropped += not heard.add(decode(frames[-1]), now_s)
        except FpmError as error:
            self._refuse("version" if str(error).startswith("version") else "malformed", str(error))

    def _refuse(self, kind: str, reason: str) -> None:
        self.refused[kind] += 1
        self.last_refusal = reason

    async def close(self) -> None:
        """Stops listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in self._sockets.values():
            socket.close()
        if self._context is not None:
            self._context.term()
        self._tasks, self._sockets, self._context = [], {}, None


def fpm_source(
    config: PlannerConfig,
    publishers: Publishers,
    *,
    options: FpmOptions | None = None,
    clock: Clock = time.monotonic,
) -> FpmSubscription:
    """Passes of the engines that ``config`` describes, from ``publishers``, or from a function that tells them.

    :class:`~planner_core.ConfigError` for a publisher of a role that the deployment doesn't have;
    :class:`~planner_core.MissingExtraError` without the extra ``dynamo``.
    """
    if not callable(publishers):
        publishers = tuple(publishers)
        wrong = [publisher for publisher in publishers if publisher.role not in config.engines]
        if wrong:
            raise ConfigError(
                f"publishers: {wrong[0].endpoint} is of the role {wrong[0].role}: must be "
                f"{' or '.join(config.engines)}"
            )
    return FpmSubscription(publishers, options or FpmOptions(), clock)


def _guest() -> Any:
    try:
        import zmq
        import zmq.asyncio
    except ImportError:
        raise MissingExtraError("FPM messages need pyzmq: pip install 'planner-core[dynamo]'") from None
    return zmq
