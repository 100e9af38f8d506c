from __future__ import annotations

import pytest

from tests.integration.sandbox.accounts import Account, accounts, name_of


@pytest.fixture(params=accounts(), ids=name_of, scope="module")
def account(request: pytest.FixtureRequest) -> Account:
    chosen: Account = request.param
    return chosen
