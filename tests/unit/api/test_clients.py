"""Clients and their repositories: GET /clients, GET and POST /clients, POST .../repository."""

from __future__ import annotations

import re
from typing import Any

import pytest

from domain.names.ids import is_id, new_id
from tests.unit.api.calls import Api

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SHORT_KEYS = {"id", "owner_name", "repo_name", "default_branch"}
ROW_KEYS = SHORT_KEYS | {"client_id", "provider", "url", "created_at", "updated_at"}


class TestListingClients:
    """GET /clients."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("GET", "/clients")

    async def test_empty_list(self, api: Api) -> None:
        assert await api.get("/clients") == {"clients": []}

    async def test_clients_have_their_repositories(self, api: Api) -> None:
        client_id = await api.add_client("Zeta")
        repository = await api.add_repository(client_id, "shop", defaultBranch="trunk")
        empty_id = await api.add_client("Alpha")
        assert await api.get("/clients") == {
            "clients": [
                {"id": empty_id, "name": "Alpha", "repositories": []},
                {
                    "id": client_id,
                    "name": "Zeta",
                    "repositories": [
                        {
                            "id": repository["id"],
                            "owner_name": "acme",
                            "repo_name": "shop",
                            "default_branch": "trunk",
                        }
                    ],
                },
            ]
        }

    async def test_repositories_are_in_order_of_creation(self, api: Api) -> None:
        client_id = await api.add_client()
        for name in ("zoo", "app", "mid"):
            await api.add_repository(client_id, name)
        (client,) = (await api.get("/clients"))["clients"]
        assert [entry["repo_name"] for entry in client["repositories"]] == ["zoo", "app", "mid"]

    async def test_all_clients_are_listed(self, api: Api) -> None:
        for number in range(120):
            await api.add_client(f"Client {number:03}")
        names = [entry["name"] for entry in (await api.get("/clients"))["clients"]]
        assert names == [f"Client {number:03}" for number in range(120)]


class TestGettingAClient:
    """GET /clients/:id."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("GET", f"/clients/{new_id()}")

    async def test_client_with_a_repository(self, api: Api) -> None:
        client_id = await api.add_client("Zeta")
        repository = await api.add_repository(client_id)
        answer = await api.get(f"/clients/{client_id}")
        assert answer == {"id": client_id, "name": "Zeta", "repository": repository}
        assert set(answer["repository"]) == ROW_KEYS

    async def test_client_without_a_repository(self, api: Api) -> None:
        client_id = await api.add_client("Zeta")
        expected = {"id": client_id, "name": "Zeta", "repository": None}
        assert await api.get(f"/clients/{client_id}") == expected

    async def test_oldest_repository_is_shown(self, api: Api) -> None:
        client_id = await api.add_client()
        first = await api.add_repository(client_id, "zoo")
        await api.add_repository(client_id, "app")
        assert (await api.get(f"/clients/{client_id}"))["repository"] == first

    async def test_upper_case_id(self, api: Api) -> None:
        client_id = await api.add_client()
        assert (await api.get(f"/clients/{client_id.upper()}"))["id"] == client_id

    async def test_unknown_id(self, api: Api) -> None:
        assert await api.refusal(404, "GET", f"/clients/{new_id()}") == "Client not found"

    @pytest.mark.parametrize("client_id", ["x", "123", "9b2f7a0c5a074f5e9d0e3f6f5a0b1c2d", "%00"])
    async def test_malformed_id(self, api: Api, client_id: str) -> None:
        shown = client_id.replace("%00", "\\x00")
        expected = f"The client id '{shown}' is not a UUID."
        assert await api.refusal(400, "GET", f"/clients/{client_id}") == expected


class TestCreatingAClient:
    """POST /clients."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("POST", "/clients")

    async def test_new_client_is_listed(self, api: Api) -> None:
        answer = await api.post("/clients", {"name": "Ünïcode & Söhne 🚀", "industry": "x"}, 201)
        assert set(answer) == {"id", "name", "repositories"}
        assert is_id(answer["id"])
        assert (answer["name"], answer["repositories"]) == ("Ünïcode & Söhne 🚀", [])
        assert (await api.get("/clients"))["clients"] == [answer]

    async def test_duplicate_names_are_allowed(self, api: Api) -> None:
        assert await api.add_client("Twin") != await api.add_client("Twin")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            (None, "name: Input should be a valid string."),
            (7, "name: Input should be a valid string."),
            (["A"], "name: Input should be a valid string."),
            ("", "name: must not be empty."),
            (" \t\n", "name: must not be empty."),
            ("a\0b", "name: must not contain NUL characters or lone surrogates."),
            ("x" * 201, "name: String should have at most 200 characters."),
        ],
    )
    async def test_invalid_name(self, api: Api, name: Any, reason: str) -> None:
        assert await api.refusal(400, "POST", "/clients", {"name": name}) == reason
        assert await api.get("/clients") == {"clients": []}

    async def test_missing_name(self, api: Api) -> None:
        assert await api.refusal(400, "POST", "/clients", {}) == "name is required."

    async def test_longest_name(self, api: Api) -> None:
        name = "🚀" * 200
        assert (await api.post("/clients", {"name": name}, 201))["name"] == name


class TestAddingARepository:
    """POST /clients/:id/repository."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("POST", f"/clients/{new_id()}/repository")

    async def test_answer_has_all_fields(self, api: Api) -> None:
        client_id = await api.add_client()
        body = {"githubOrg": "Acme-1", "githubRepo": "Web.Site_2", "defaultBranch": "release/1.x"}
        answer = await api.post(f"/clients/{client_id}/repository", body, 201)
        assert set(answer) == ROW_KEYS
        assert is_id(answer["id"])
        assert TIME.fullmatch(answer["created_at"])
        assert TIME.fullmatch(answer["updated_at"])
        shown = {key: answer[key] for key in ROW_KEYS - {"id", "created_at", "updated_at"}}
        assert shown == {
            "client_id": client_id,
            "provider": "github",
            "owner_name": "Acme-1",
            "repo_name": "Web.Site_2",
            "default_branch": "release/1.x",
            "url": "https://github.test/Acme-1/Web.Site_2",
        }

    async def test_default_branch_is_main(self, api: Api) -> None:
        assert (await api.add_repository(await api.add_client()))["default_branch"] == "main"

    async def test_unknown_client(self, api: Api) -> None:
        body = {"githubOrg": "acme", "githubRepo": "shop"}
        path = f"/clients/{new_id()}/repository"
        assert await api.refusal(404, "POST", path, body) == "Client not found"
        assert "is not a UUID" in await api.refusal(400, "POST", "/clients/x/repository", body)

    @pytest.mark.parametrize(("owner", "name"), [("acme", "shop"), ("ACME", "Shop")])
    async def test_duplicate_repository_of_a_client_is_refused(
        self, api: Api, owner: str, name: str
    ) -> None:
        client_id = await api.add_owner()
        body = {"githubOrg": owner, "githubRepo": name}
        reason = await api.refusal(409, "POST", f"/clients/{client_id}/repository", body)
        assert reason == f"The client already has the repository {owner}/{name}."
        (client,) = (await api.get("/clients"))["clients"]
        assert len(client["repositories"]) == 1

    async def test_two_clients_can_have_the_same_repository(self, api: Api) -> None:
        first, second = await api.add_owner(), await api.add_owner()
        assert first != second

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({}, "githubOrg is required. githubRepo is required."),
            ({"githubOrg": "acme"}, "githubRepo is required."),
            ({"githubRepo": "shop"}, "githubOrg is required."),
            (
                {"githubOrg": 1, "githubRepo": None},
                "githubOrg: Input should be a valid string. "
                "githubRepo: Input should be a valid string.",
            ),
        ],
    )
    async def test_missing_names(self, api: Api, body: dict[str, Any], reason: str) -> None:
        path = f"/clients/{await api.add_client()}/repository"
        assert await api.refusal(400, "POST", path, body) == reason

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"githubOrg": ""}, "githubOrg '' is not a GitHub owner name"),
            ({"githubOrg": "../etc"}, "githubOrg '../etc' is not a GitHub owner name"),
            ({"githubOrg": "a\nb"}, r"githubOrg 'a\nb' is not a GitHub owner name"),
            ({"githubOrg": "\0"}, r"githubOrg '\x00' is not a GitHub owner name"),
            ({"githubRepo": ".."}, "githubRepo '..' is not a GitHub repository name"),
            ({"githubRepo": "a/b"}, "githubRepo 'a/b' is not a GitHub repository name"),
            ({"githubRepo": "x.git"}, "githubRepo 'x.git' is not a GitHub repository name"),
            ({"defaultBranch": "a..b"}, "defaultBranch 'a..b' is not a valid branch name"),
            ({"defaultBranch": ""}, "defaultBranch '' is not a valid branch name"),
            ({"defaultBranch": "-f"}, "defaultBranch '-f' is not a valid branch name"),
            ({"defaultBranch": 1}, "defaultBranch: Input should be a valid string"),
        ],
    )
    async def test_invalid_names(self, api: Api, changes: dict[str, Any], reason: str) -> None:
        client_id = await api.add_client()
        body = {"githubOrg": "acme", "githubRepo": "shop", **changes}
        given = await api.refusal(400, "POST", f"/clients/{client_id}/repository", body)
        assert given.startswith(reason)
        assert (await api.get(f"/clients/{client_id}"))["repository"] is None
