"""One client of a Supabase project, whose every request may be sent again.

Requests are repeated when their answer is lost, so each must be harmless to repeat. HTTP/1.1 and a
keep-alive shorter than a gateway's, because over HTTP/2, the package's default, requests failed
whenever the server ended a connection (measured: 24 of 64 at its keep-alive).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
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
"""Rows in a request: Supabase's own limit (`max_rows`), above which it silently leaves rows out."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

MAX_INTEGER = 2**31 - 1
"""Largest limit and offset sent; more rows than that are not kept."""

SCHEMA_VERSION = 1
"""What `orchestrator_schema()` answers at least, once this version's migrations are applied."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long a call goes on; all in seconds.

    `answer` bounds each wait for bytes: Supabase itself ends a statement after 8 s. `total` bounds
    the call with all its tries and stays below what its callers allow (30 s for an activity).
    """

    connect: float = 3.0
    answer: float = 9.0
    total: float = 20.0
    tries: int = 4
    first_pause: float = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave; `repeated` tells that an earlier try may have been carried out too."""

    data: Any
    repeated: bool


class Query(Protocol):
    """A request of the `supabase` package; each `execute` sends it again."""

    async def execute(self) -> Any:
        """Send it."""


class SupabaseConnection:
    """The client, its retries and its pages.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        patience: how long a call goes on.
    """

    def __init__(self, url: str, key: str, patience: RetryLimits) -> None:
        self._url = url
        self._key = key
        self._patience = patience
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the client. Nothing is sent.

        Raises:
            DependencyFailed: the key is none that Supabase could have made.
        """
        if not self._key.isascii():
            raise DependencyFailed(REFUSED_KEY, "store")
        # It would log the address of every request, and with it what is asked for.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._http = _http_client(self._patience)
        options = AsyncClientOptions(
            httpx_client=self._http,
            postgrest_client_retry=False,
            auto_refresh_token=False,
            persist_session=False,
        )
        self._client = await acreate_client(self._url, self._key, options)

    async def close(self) -> None:
        """Close what is open."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    async def check(self) -> None:
        """Ask for the schema's version.

        Raises:
            DependencyFailed: the key is not the secret one, the migrations are not applied, or the
                project gives out fewer rows at a time than a page has.
        """
        rows = await self.call("orchestrator_schema", {})
        if not isinstance(rows, list) or not rows or rows[0] < SCHEMA_VERSION:
            raise DependencyFailed(OLD_SCHEMA, "store")
        if len(rows) < PAGE:
            raise DependencyFailed(
                f"The Supabase project gives out at most {len(rows)} rows at a time. Set the "
                f"maximum in its API settings to {PAGE} or more.",
                "store",
            )

    def table(self, name: str) -> AsyncRequestBuilder:
        """Begin a request for a table.

        Raises:
            DependencyUnavailable: the connection is not open.
        """
        return self._opened().table(name)

    def function(self, name: str, arguments: dict[str, Any]) -> AsyncRPCFilterRequestBuilder:
        """Begin a call of a function of the database; raises as `table`."""
        return self._opened().rpc(name, arguments)

    async def rows(self, query: Query) -> list[Row]:
        """Return the rows that a request gives.

        Raises:
            OrchestratorError: as `store.supabase.errors.translated`; `DependencyUnavailable` when
                no try was answered.
        """
        try:
            return rows_of(await self.attempt(query))
        except Refusal as refused:
            raise translated(refused) from refused

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return what a function of the database gives; raises as `rows`."""
        try:
            return (await self.attempt(self.function(name, arguments))).data
        except Refusal as refused:
            raise translated(refused) from refused

    async def pages(
        self, page: Callable[[list[Row]], AsyncSelectRequestBuilder], limit: int = MAX_INTEGER
    ) -> list[Row]:
        """Return up to `limit` rows, a page after the other.

        Args:
            page: makes the request for what follows the rows read so far.
            limit: how many rows at most.
        """
        found: list[Row] = []
        while len(found) < limit:
            size = min(PAGE, limit - len(found))
            rows = await self.rows(page(found).limit(size))
            found += rows
            if len(rows) < size:
                break
        return found

    async def attempt(self, query: Query) -> Answer:
        """Send a request until it is answered or patience ends.

        Raises:
            Refusal: the answer is an error.
            DependencyUnavailable: there was none.
        """
        try:
            async with asyncio.timeout(self._patience.total):
                return await self._try_often(query)
        except TimeoutError as error:
            raise unavailable(error) from error

    async def _try_often(self, query: Query) -> Answer:
        repeated = False
        for number in range(self._patience.tries):
            if number:
                await asyncio.sleep(self._pause(number))
                self._opened()
            try:
                return Answer((await query.execute()).data, repeated)
            except APIError as error:
                raise refusal(error) from None
            except (httpx.RequestError, NoAnswer) as error:
                repeated = repeated or not isinstance(error, _NEVER_SENT)
                last: Exception = error
        raise unavailable(last) from last

    def _pause(self, number: int) -> float:
        """Return seconds that grow with each try, and differ between those that failed at once."""
        return self._patience.first_pause * 3.0 ** (number - 1) * random.uniform(0.5, 1.5)

    def _opened(self) -> AsyncClient:
        if self._client is None:
            raise DependencyUnavailable("The store is not open. Open it first.", "store")
        return self._client


class SupabaseAggregate:
    """A part of the store. All parts of one store share its connection."""

    _connection: SupabaseConnection


def rows_of(answer: Answer) -> list[Row]:
    """Return an answer's rows.

    Raises:
        DependencyFailed: it is something else.
    """
    if not isinstance(answer.data, list):
        raise DependencyFailed(
            "What answers at SUPABASE_URL is not Supabase. Check the address.", "store"
        )
    return answer.data


def _http_client(patience: RetryLimits) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(patience.answer, connect=patience.connect, pool=patience.total),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=4),
        event_hooks={"response": [raise_failures]},
    )
