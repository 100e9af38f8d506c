"""Find the client or job that a path names, or refuse the request."""

from __future__ import annotations

from domain.errors import InvalidRequest, NotFound
from domain.job_details import JobDetails
from domain.names.ids import is_id
from domain.repositories import ClientDetails
from store.protocol import Store


def parse_id(text: str, name: str) -> str:
    """Return an id in lower case.

    Raises:
        InvalidRequest: it is not a UUID; the error calls it `name`.
    """
    if not is_id(text):
        raise InvalidRequest(f"{name} {text[:80]!r} is not a UUID.")
    return text.lower()


async def existing_client(store: Store, client_id: str) -> ClientDetails:
    """Return a client.

    Raises:
        InvalidRequest: the id is not a UUID.
        NotFound: no client has this id.
    """
    details = await store.get_client(parse_id(client_id, "The client id"))
    if details is None:
        raise NotFound("Client not found")
    return details


async def existing_job(store: Store, job_id: str) -> JobDetails:
    """Return a job.

    Raises:
        InvalidRequest: the id is not a UUID.
        NotFound: no job has this id.
    """
    details = await store.get_job(parse_id(job_id, "The job id"))
    if details is None:
        raise NotFound("Job not found")
    return details
