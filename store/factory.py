"""Which store the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from store.protocol import Store


@dataclass(frozen=True, slots=True)
class SupabaseProject:
    """Where a Supabase project is, and its secret (service role) key."""

    url: str
    key: str = field(repr=False)


def make_store(sqlite_path: Path, project: SupabaseProject | None) -> Store:
    """Return the store, not yet open: the project's, or SQLite's without one.

    An adapter is imported only when it is the one: the `supabase` package takes 55 MB (measured).
    """
    if project is not None:
        from store.supabase.store import SupabaseStore

        return SupabaseStore(project.url, project.key)
    from store.sqlite.store import SqliteStore

    return SqliteStore(sqlite_path)
