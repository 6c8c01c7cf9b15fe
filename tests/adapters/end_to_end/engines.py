"""Prefill and decode engines as a fluid model, with the pages that vLLM and Dynamo's frontend would serve of them.

Work flows instead of coming in requests, so that what the counters say is the same whenever they are read. A pass of a
prefill engine takes 20 ms and 80 µs per token; a pass of a decode engine 10 ms and 0.3 ms per sequence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ISL, OSL = 1000, 100
KV_TOKENS = 200_000
BLOCK_TOKENS = 16
PREFILL_S = 0.020 + 80e-6 * ISL
SLOTS = 20
"""Engines of a role that can be scraped."""
STEP_S = 0.05
COUNTERS = (
    "vllm:iteration_tokens_total_count",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
)


def decode_s(sequences: float) -> float:
    """Of a pass."""
    return 0.010 + 0.3e-3 * sequences


class Pool:
    """The engines of a role, which share its work evenly."""

    def __init__(self) -> None:
        self.slots: list[str | None] = [None] * SLOTS
        self.counted: dict[str, dict[str, float]] = {}
        self.in_hand = 0.0
        """Requests, of all engines."""
        self.gauges = {"running": 0.0, "waiting": 0.0, "kv_share": 0.0}
        """Of one engine."""
        self.latency_s = 0.0
        """TTFT of prefill, ITL of decode; of who comes now."""

    @property
    def names(self) -> list[str]:
        return [name for name in self.slots if name is not None]

    def set(self, names: Iterable[str]) -> None:
        """These serve from now on; each keeps its slot."""
        serving = set(names)
        self.slots = [name if name in serving else None for name in self.slots]
        for name in sorted(serving - set(self.names)):
            self.slots[self.slots.index(None)] = name
            self.counted[name] = dict.fromkeys(COUNTERS, 0.0)

    def count(self, step: dict[str, float]) -> None:
        for name in self.names:
            for counter, value in step.items():
                self.counted[name][counter] += value

    def page(self, slot: int) -> str | None:
        """What the engine in a slot says of itself; ``None`` if there is none."""
        name = self.slots[slot]
        if name is None:
            return None
        of = f'engine="0",model_name="llama",pod="{name}"'
        gauges = {
            "vllm:num_requests_running": self.gauges["running"],
            "vllm:num_requests_waiting": self.gauges["waiting"],
            "vllm:kv_cache_usage_perc": self.gauges["kv_share"],
        }
        lines = [f"{series}{{{of}}} {value!r}" for series, value in (gauges | self.counted[name]).items()]
        blocks = f'block_size="{BLOCK_TOKENS}",num_gpu_blocks="{KV_TOKENS // BLOCK_TOKENS}"'
        return "\n".join([*lines, f"vllm:cache_config_info{{{blocks},{of}}} 1.0", ""])


class Engines:
    """Both pools and the frontend before them, under ``rate`` requests per second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pools = {"prefill": Pool(), "decode": Pool()}
        self.rate = 0.0
        self._clock = clock
        self._frontend = dict.fromkeys(("started", "done", "ttft_s", "itl_s"), 0.0)
        self._at_s = clock()
        self._lock = threading.Lock()

    def set(self, role: str, names: Iterable[str]) -> None:
        with self._lock:
            self._advance()
            self.pools[role].set(names)

    def set_rate(self, rate: float) -> None:
        with self._lock:
            self._advance()
            self.rate = rate

    def latencies_ms(self) -> tuple[float, float]:
        """TTFT and ITL of who comes now."""
        with self._lock:
            self._advance()
            return 1e3 * self.pools["prefill"].latency_s, 1e3 * self.pools["decode"].latency_s

    def page(self, path: str) -> str | None:
        """``/frontend``, ``/prefill/0``, …"""
        with self._lock:
            self._advance()
            _, role, *slot = path.split("/")
            return self._frontend_page() if role == "frontend" else self.pools[role].page(int(slot[0]))

    def _advance(self) -> None:
        now_s = self._clock()
        while self._at_s + STEP_S <= now_s:
            self._at_s += STEP_S
            prefilled = self._prefill(self.rate * STEP_S)
            decoded = self._decode(prefilled)
            for name, more in {
                "started": self.rate * STEP_S,
                "done": decoded,
                "ttft_s": prefilled * self.pools["prefill"].latency_s,
                "itl_s": decoded * OSL * self.pools["decode"].latency_s,
            }.items():
                self._frontend[name] += more

    def _prefill(self, arrived: float) -> float:
        """Prompts one after the other; as a queue with random arrivals while it keeps up."""
        pool, number = self.pools["prefill"], len(self.pools["prefill"].names)
        pool.in_hand += arrived
        if not number:
            return 0.0
        done = min(pool.in_hand, number * STEP_S / PREFILL_S)
        pool.in_hand -= done
        use = min(done * PREFILL_S / (number * STEP_S), 0.98)
        waiting = pool.in_hand / number + use**2 / (2 * (1 - use))
        pool.gauges |= {"running": use, "waiting": waiting}
        pool.latency_s = PREFILL_S * (1 + waiting)
        each = done / number
        pool.count(
            {
                "vllm:iteration_tokens_total_count": each,
                "vllm:prompt_tokens_total": each * ISL,
                "vllm:generation_tokens_total": each,
                "vllm:time_to_first_token_seconds_count": each,
                "vllm:time_to_first_token_seconds_sum": each * pool.latency_s,
            }
        )
        return done

    def _decode(self, arrived: float) -> float:
        """All at a time, as far as the KV cache holds them."""
        pool, number = self.pools["decode"], len(self.pools["decode"].names)
        pool.in_hand += arrived
        if not number:
            return 0.0
        context = ISL + OSL / 2
        running = min(pool.in_hand / number, KV_TOKENS / context)
        pass_s = decode_s(running)
        each = min(running * STEP_S / (pass_s * OSL), running)
        pool.in_hand = 0.0 if pool.in_hand < 1e-3 else pool.in_hand - each * number
        waiting = max(0.0, pool.in_hand / number - running)
        shown = running if running > 1e-2 else 0.0
        pool.gauges |= {"running": shown, "waiting": waiting, "kv_share": shown * context / KV_TOKENS}
        pool.latency_s = pass_s
        pool.count(
            {
                "vllm:iteration_tokens_total_count": STEP_S / pass_s if shown else 0.0,
                "vllm:prompt_tokens_total": each * ISL,
                "vllm:generation_tokens_total": each * OSL,
                "vllm:time_to_first_token_seconds_count": each,
                "vllm:time_to_first_token_seconds_sum": each * pass_s,
                "vllm:inter_token_latency_seconds_count": each * (OSL - 1),
                "vllm:inter_token_latency_seconds_sum": each * (OSL - 1) * pass_s,
            }
        )
        return each * number

    def _frontend_page(self) -> str:
        of, counted = 'dynamo_namespace="dynamo",model="llama"', self._frontend
        values = {
            "requests_started_total": counted["started"],
            "requests_total": counted["done"],
            "inflight_requests": counted["started"] - counted["done"],
        }
        sums = {
            "input_sequence_tokens": (counted["done"] * ISL, counted["done"]),
            "output_sequence_tokens": (counted["done"] * OSL, counted["done"]),
            "time_to_first_token_seconds": (counted["ttft_s"], counted["done"]),
            "inter_token_latency_seconds": (counted["itl_s"], counted["done"] * OSL),
            "request_duration_seconds": (counted["ttft_s"] + counted["itl_s"], counted["done"]),
        }
        for name, (total, number) in sums.items():
            values |= {f"{name}_sum": total, f"{name}_count": number}
        return "".join(f"dynamo_frontend_{name}{{{of}}} {value!r}\n" for name, value in values.items())


class Served:
    """The pages over HTTP; 404 where no engine is."""

    def __init__(self, engines: Engines) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = engines.page(self.path)
                body = (page or "").encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def scrape_config(self) -> str:
        """Prometheus's, for every engine that there may be and the frontend."""
        components = {"prefill": "prefill", "decode": "backend"}
        engines = [
            {
                "targets": [self.address],
                "labels": {
                    "__metrics_path__": f"/{role}/{slot}",
                    "instance": f"{role}-{slot}",
                    "dynamo_namespace": "dynamo",
                    "dynamo_component": component,
                },
            }
            for role, component in components.items()
            for slot in range(SLOTS)
        ]
        frontend = {
            "targets": [self.address],
            "labels": {"__metrics_path__": "/frontend", "instance": "frontend"},
        }
        return f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: graph, static_configs: {[*engines, frontend]!r}}}]
"""
