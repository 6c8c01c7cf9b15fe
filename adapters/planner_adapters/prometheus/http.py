"""GET and POST that end: bounded in time, in bytes and in tries, with one line that says what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import attrs

from planner_core import ConfigError, MissingExtraError
from planner_core.data.checks import config_number

try:
    import httpx
except ImportError:
    raise MissingExtraError(
        "reading Prometheus and engines needs httpx: pip install 'planner-core[prometheus]'"
    ) from None


class FetchError(Exception):
    """No usable answer; one line that names the address and the reason, and never a secret."""


def _hidden(token: str | None) -> str:
    return "'…'" if token else "None"


@attrs.frozen(kw_only=True)
class HttpOptions:
    """How to ask. Secrets are in no ``repr``."""

    timeout_s: float = attrs.field(default=4.0, validator=config_number(above=0))
    """For one try, from the connection to the last byte."""
    retries: int = attrs.field(default=1, validator=config_number(whole=True, least=0, most=10))
    """Further tries after a connection that failed, a time-out, 429 or 5xx."""
    backoff_s: float = attrs.field(default=0.2, validator=config_number(least=0))
    """Pause before the second try; it doubles with each one."""
    max_bytes: int = attrs.field(default=32_000_000, validator=config_number(whole=True, least=1))
    """Longer answers are cut off and refused."""
    bearer_token: str | None = attrs.field(default=None, repr=_hidden)
    bearer_token_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """Read for each request, since mounted tokens rotate."""
    ca_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """Authorities to trust in place of the system's."""

    def headers(self) -> dict[str, str]:
        """Those of a request now. :class:`FetchError` if the token's file can't be read."""
        token = self.bearer_token
        if self.bearer_token_file is not None:
            try:
                token = self.bearer_token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "is no text"
                raise FetchError(f"{self.bearer_token_file}: the token can't be read: {reason}") from None
        # No compression: a few bytes of it can become gigabytes.
        headers = {"Accept-Encoding": "identity"}
        return headers | {"Authorization": f"Bearer {token}"} if token else headers


class Http:
    """A client with its connections; use it as a context or close it."""

    def __init__(self, options: HttpOptions, *, max_connections: int = 100) -> None:
        self._options = options
        try:
            verify = ssl.create_default_context(cafile=options.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"ca_file = {str(options.ca_file)!r}: no authorities can be read: {error}"
            ) from None
        self._client = httpx.AsyncClient(
            verify=verify,
            timeout=options.timeout_s,
            limits=httpx.Limits(max_connections=max_connections),
            follow_redirects=False,  # a redirect would take the token elsewhere
        )

    async def get(self, url: str, accept: str = "*/*") -> bytes:
        """The body. :class:`FetchError` after the last try."""
        return await self._tries("GET", url, {"Accept": accept}, None)

    async def post(self, url: str, form: Mapping[str, str]) -> bytes:
        """The body of the answer to a form. :class:`FetchError` after the last try."""
        return await self._tries("POST", url, {}, form)

    async def _tries(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> bytes:
        for number in range(self._options.retries + 1):
            if number:
                await asyncio.sleep(self._options.backoff_s * 2 ** (number - 1))
            try:
                status, body = await self._once(method, url, headers, form)
            except (TimeoutError, httpx.TimeoutException):
                problem = f"no answer within {self._options.timeout_s:g} s"
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                problem = str(error).split("\n")[0] or type(error).__name__
            else:
                if status == 200:
                    return body
                problem = f"HTTP {status}{_excerpt(body)}"
                if status != 429 and status < 500:
                    break
        raise FetchError(f"{shown(url)}: {problem}")

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        headers = {**headers, **self._options.headers()}
        body = bytearray()
        # httpx counts the pause between two reads; a server that drips would never end.
        async with (
            asyncio.timeout(self._options.timeout_s),
            self._client.stream(method, url, headers=headers, data=form) as answer,
        ):
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._options.max_bytes:
                    raise FetchError(
                        f"{shown(url)}: the answer is longer than {self._options.max_bytes} bytes; ask for less, "
                        "or raise max_bytes"
                    )
        return answer.status_code, bytes(body)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def shown(url: str) -> str:
    """The address without user and password, to stand in messages."""
    with contextlib.suppress(httpx.InvalidURL):
        parsed = httpx.URL(url)
        return str(parsed.copy_with(userinfo=b"", query=None)) if parsed.userinfo else url.partition("?")[0]
    return "an address that is none"


def _excerpt(body: bytes) -> str:
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    return f": {text[:200]}" if text else ""
