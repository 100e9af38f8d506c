"""Settings of the store."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from settings.fields import Group, Secret, parsed, setting, url


class StoreSettings(Group):
    """The Supabase project. Without one, rows are in SQLite."""

    title = "The store"

    supabase_url: Annotated[str | None, parsed(url)] = setting(
        "SUPABASE_URL", None, "Supabase project for the rows; without it they are in SQLite"
    )
    supabase_key: Secret = setting(
        "SUPABASE_SERVICE_ROLE_KEY", None, "Secret key of the project; needed with `SUPABASE_URL`"
    )

    @property
    def uses_supabase(self) -> bool:
        """Whether rows are in Supabase."""
        return self.supabase_url is not None

    @model_validator(mode="after")
    def _check_pair(self) -> StoreSettings:
        if (self.supabase_url is None) != (self.supabase_key is None):
            missing = "SUPABASE_SERVICE_ROLE_KEY" if self.supabase_url else "SUPABASE_URL"
            raise ValueError(
                f"{missing} is missing. Set both to use Supabase, or neither to use SQLite."
            )
        return self
