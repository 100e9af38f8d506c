"""The client of a Supabase project and its retries.

A request whose answer is lost is sent again, so each request must be idempotent. The client uses
HTTP/1.1 and a keep-alive shorter than a gateway's. Over HTTP/2, the package's default, requests
failed whenever the server closed a connection (measured: 24 of 64).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
from postgrest import (
    APIError,
    AsyncRequestBuilder,
    AsyncRPCFilterRequestBuilder,
    AsyncSelectRequestBuilder,
)

from domain.errors import DependencyFailed, DependencyUnavailable
from store.codec.rows import Row
from store.supabase.errors import (
    OLD_SCHEMA,
    REFUSED_KEY,
    NoAnswer,
    Refusal,
    raise_failures,
    refusal,
    translated,
    unavailable,
)
from supabase import AsyncClient, AsyncClientOptions, acreate_client

PAGE = 1000
"""Rows per request. It is Supabase's own limit (`max_rows`), which cuts answers silently."""

IDS_IN_ADDRESS = 100
"""Ids in one request's address: 4 KB, half of the limit of common gateways."""

MAX_INTEGER = 2**31 - 1
"""The largest limit and offset sent; a project has fewer rows."""

SCHEMA_VERSION = 1
"""The lowest version that `orchestrator_schema()` may return."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """The limits of a request and its retries; times are in seconds.

    `answer` limits each wait for bytes; Supabase itself cancels a statement after 8 s. `total`
    limits the request with all its tries. It is below the limit of the callers, 30 s for an
    activity.
    """

    connect: float = 3.0
    answer: float = 9.0
    total: float = 20.0
    tries: int = 4
    first_pause: float = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request. With `repeated`, an earlier try may have been executed too."""

    data: Any
    repeated: bool


class Query(Protocol):
    """A request of the `supabase` package; each `execute` sends it again."""

    async def execute(self) -> Any:
        """Send it."""


class SupabaseSession:
    """The HTTP client of one project.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        limits: the time limits of a request.
    """

    def __init__(self, url: str, key: str, limits: RetryLimits) -> None:
        self._url = url
        self._key = key
        self._limits = limits
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """The open client.

        Raises:
            DependencyUnavailable: it is not open.
        """
        if self._client is None:
            raise DependencyUnavailable("The store is not open. Open it first.", "store")
        return self._client

    async def open(self) -> None:
        """Create the client. Sends nothing.

        Raises:
            DependencyFailed: Supabase cannot have created the key.
        """
        if not self._key.isascii():
            raise DependencyFailed(REFUSED_KEY, "store")
        # httpx logs the address of each request, and addresses contain stored values.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._http = _http_client(self._limits)
        options = AsyncClientOptions(
            httpx_client=self._http,
            postgrest_client_retry=False,
            auto_refresh_token=False,
            persist_session=False,
        )
        self._client = await acreate_client(self._url, self._key, options)

    async def close(self) -> None:
        """Close the client. Idempotent."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()


class SupabaseConnection:
    """Sends requests to a project, with retries, and reads pages."""

    def __init__(self, session: SupabaseSession, limits: RetryLimits) -> None:
        self._session = session
        self._limits = limits

    def without_retries(self) -> SupabaseConnection:
        """Return a connection of the same session that sends each request once."""
        return SupabaseConnection(self._session, replace(self._limits, tries=1))

    async def check_schema(self) -> None:
        """Read the schema's version.

        Raises:
            DependencyFailed: the key is not the secret one, the migrations are not applied, or the
                project's row limit is below `PAGE`.
        """
        rows = await self.call("orchestrator_schema", {})
        if not isinstance(rows, list) or not rows or rows[0] < SCHEMA_VERSION:
            raise DependencyFailed(OLD_SCHEMA, "store")
        if len(rows) < PAGE:
            raise DependencyFailed(
                f"The Supabase project returns at most {len(rows)} rows per request. Set the "
                f"maximum in its API settings to {PAGE} or more.",
                "store",
            )

    def table(self, name: str) -> AsyncRequestBuilder:
        """Begin a request for a table.

        Raises:
            DependencyUnavailable: the store is not open.
        """
        return self._session.client.table(name)

    def function(self, name: str, arguments: dict[str, Any]) -> AsyncRPCFilterRequestBuilder:
        """Begin a call of a database function. Raises the errors of `table`."""
        return self._session.client.rpc(name, arguments)

    async def rows(self, query: Query) -> list[Row]:
        """Send a request and return its rows.

        Raises:
            DependencyUnavailable: no try was answered.
            OrchestratorError: the request was refused; see `store.supabase.errors.translated`.
        """
        try:
            return rows_of(await self.send(query))
        except Refusal as refused:
            raise translated(refused) from refused

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a database function and return its result. Raises the errors of `rows`."""
        try:
            return (await self.send(self.function(name, arguments))).data
        except Refusal as refused:
            raise translated(refused) from refused

    async def pages(
        self, page: Callable[[list[Row]], AsyncSelectRequestBuilder], limit: int = MAX_INTEGER
    ) -> list[Row]:
        """Return up to `limit` rows, read page by page.

        Args:
            page: returns the request for the rows after those read so far.
            limit: the maximum number of rows.
        """
        found: list[Row] = []
        while len(found) < limit:
            size = min(PAGE, limit - len(found))
            rows = await self.rows(page(found).limit(size))
            found += rows
            if len(rows) < size:
                break
        return found

    async def send(self, query: Query) -> Answer:
        """Send a request, again when it is not answered, within the limits.

        Raises:
            Refusal: the answer is an error.
            DependencyUnavailable: no try was answered.
        """
        try:
            async with asyncio.timeout(self._limits.total):
                return await self._send_with_retries(query)
        except TimeoutError as error:
            raise unavailable(error) from error

    async def _send_with_retries(self, query: Query) -> Answer:
        repeated = False
        for number in range(self._limits.tries):
            if number:
                await asyncio.sleep(self._backoff(number))
                # Raises when the store was closed during the pause.
                _ = self._session.client
            try:
                return Answer((await query.execute()).data, repeated)
            except APIError as error:
                raise refusal(error) from None
            except (httpx.RequestError, NoAnswer) as error:
                repeated = repeated or not isinstance(error, _NEVER_SENT)
                last: Exception = error
        raise unavailable(last) from last

    def _backoff(self, number: int) -> float:
        # With jitter, so that requests that failed together are not repeated together.
        return self._limits.first_pause * 3.0 ** (number - 1) * random.uniform(0.5, 1.5)


class SupabaseAggregate:
    """A part of the store. All parts of one store share its connection."""

    _connection: SupabaseConnection


def rows_of(answer: Answer) -> list[Row]:
    """Return the rows of an answer.

    Raises:
        DependencyFailed: the answer is not a list.
    """
    if not isinstance(answer.data, list):
        raise DependencyFailed(
            "The server at SUPABASE_URL is not Supabase. Correct the address.", "store"
        )
    return answer.data


def _http_client(limits: RetryLimits) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(limits.answer, connect=limits.connect, pool=limits.total),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=4),
        event_hooks={"response": [raise_failures]},
    )
