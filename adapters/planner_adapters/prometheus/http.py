"""GET and POST that end: bounded in time, in bytes and in tries, with one line that says what went wrong."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs

from planner_core import ConfigError, MissingExtraError
from planner_core.data.checks import config_number

try:
    import aiohttp
    from yarl import URL
except ImportError:
    raise MissingExtraError(
        "reading Prometheus and engines needs aiohttp: pip install 'planner-core[prometheus]'"
    ) from None


KEEP_S = 0.5
"""A connection outlives the requests of one look, not the pause until the next: Prometheus takes 512 in all, and one
process may hold hundreds of planners."""


class FetchError(Exception):
    """No usable answer; one line that names the address and the reason, and never a secret."""


def _trusting(ca_file: Path | None = None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


_trusting_the_system = functools.cache(_trusting)  # reading all of its authorities takes 20 ms


_address = functools.lru_cache(4096)(URL)  # the same ones are asked again and again


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
    """A client with its connections; use it as a context or close it. Proxies of the environment aren't used."""

    def __init__(self, options: HttpOptions, *, keep_alive: bool = True) -> None:
        """``keep_alive``: connections are used again; not worth it where each request goes to another host."""
        self._options = options
        self._keep_alive = keep_alive
        try:
            self._tls = _trusting(options.ca_file) if options.ca_file else _trusting_the_system()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"ca_file = {str(options.ca_file)!r}: no authorities can be read: {error}"
            ) from None
        # Made where it is used: it belongs to an event loop.
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, accept: str = "*/*") -> bytes:
        """The body. :class:`FetchError` after the last try."""
        return await self._tries("GET", url, {"Accept": accept}, None)

    async def post(self, url: str, form: Mapping[str, str]) -> bytes:
        """The body of the answer to a form. :class:`FetchError` after the last try."""
        sent = urlencode(form).encode()
        return await self._tries("POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, sent)

    async def post_json(self, url: str, body: bytes) -> bytes:
        """The body of the answer to JSON. :class:`FetchError` after the last try."""
        return await self._tries("POST", url, {"Content-Type": "application/json"}, body)

    async def _tries(self, method: str, url: str, headers: Mapping[str, str], sent: bytes | None) -> bytes:
        for number in range(self._options.retries + 1):
            if number:
                await asyncio.sleep(self._options.backoff_s * 2 ** (number - 1))
            try:
                status, body = await self._once(method, url, headers, sent)
            except TimeoutError:
                problem = f"no answer within {self._options.timeout_s:g} s"
            except aiohttp.ClientConnectorError as error:
                problem = f"no connection ({error.strerror or error.os_error})"
            except ValueError:  # aiohttp.InvalidURL is one, and so is a user in the address beside a token
                raise FetchError(f"{shown(url)}: is no address, or has a user beside a token") from None
            except (aiohttp.ClientError, OSError) as error:
                problem = str(error).split("\n")[0] or type(error).__name__
            else:
                if status == 200:
                    return body
                problem = f"HTTP {status}{_excerpt(body)}"
                if status != 429 and status < 500:
                    break
        raise FetchError(f"{shown(url)}: {problem}")

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], sent: bytes | None
    ) -> tuple[int, bytes]:
        headers = {**headers, **self._options.headers()}
        body = bytearray()
        session = self._session = self._session or self._opened()
        async with (
            asyncio.timeout(self._options.timeout_s),
            session.request(
                method, _address(url), headers=headers, data=sent, allow_redirects=False
            ) as answer,
        ):
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > self._options.max_bytes:
                    raise FetchError(
                        f"{shown(url)}: the answer is longer than {self._options.max_bytes} bytes; ask for less, "
                        "or raise max_bytes"
                    )
        return answer.status, bytes(body)

    def _opened(self) -> aiohttp.ClientSession:
        # No redirects and no cookies: either would take secrets elsewhere. Not decompressed: see headers().
        kept: dict[str, Any] = {"keepalive_timeout": KEEP_S} if self._keep_alive else {"force_close": True}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, **kept),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def shown(url: str) -> str:
    """The address without user, password and query, to stand in messages."""
    try:
        parsed = urlsplit(url)
    except ValueError:
        return "an address that is none"
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _excerpt(body: bytes) -> str:
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    return f": {text[:200]}" if text else ""
