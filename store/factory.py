"""Creates the store that the settings select."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from store.protocol import Store


@dataclass(frozen=True, slots=True)
class SupabaseProject:
    """The address of a Supabase project and its secret (service role) key."""

    url: str
    key: str = field(repr=False)


def make_store(sqlite_path: Path, project: SupabaseProject | None) -> Store:
    """Return the store of the project, or the SQLite store without one. It is not open yet."""
    # Only the selected adapter is imported, because the `supabase` package takes 55 MB (measured).
    if project is not None:
        from store.supabase.store import SupabaseStore

        return SupabaseStore(project.url, project.key)
    from store.sqlite.store import SqliteStore

    return SqliteStore(sqlite_path)
