"""Fixtures for the tests of the proxy: a server for Claude's API, and certificates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.server import serving as serving_app
from tests.integration.sandbox.proxy.certificates import Certificates, make_certificates
from tests.integration.sandbox.proxy.clients import Api


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def api_url(api: Api) -> Iterator[str]:
    with serving_app(api) as url:
        yield url


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    return make_certificates(directory, "localhost", "model.example")
