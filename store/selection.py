"""Which store the settings ask for."""

from __future__ import annotations

from pathlib import Path

from domain.errors import DependencyFailed
from store.protocol import Store


def make_store(sqlite_path: Path, *, uses_supabase: bool) -> Store:
    """Return the store, not yet open; an adapter is imported only when it is the one."""
    if uses_supabase:
        raise DependencyFailed(
            "This version cannot keep its rows in Supabase yet. Unset SUPABASE_URL and "
            "SUPABASE_SERVICE_ROLE_KEY to use SQLite.",
            "store",
        )
    from store.sqlite import SqliteStore

    return SqliteStore(sqlite_path)
