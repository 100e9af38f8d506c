from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from store.factory import SupabaseProject, make_store
from store.sqlite.store import SqliteStore
from tests.stack import ROOT

WITHOUT_SUPABASE = """
import sys
from pathlib import Path
from store.factory import make_store
make_store(Path("orchestrator.db"), None)
print([name for name in ("supabase", "postgrest", "httpx") if name in sys.modules])
"""


def test_a_configured_project_selects_supabase(tmp_path: Path) -> None:
    from store.supabase.store import SupabaseStore

    project = SupabaseProject("https://project.supabase.co", "sb_secret_x")
    assert isinstance(make_store(tmp_path / "orchestrator.db", project), SupabaseStore)
    assert isinstance(make_store(tmp_path / "orchestrator.db", None), SqliteStore)
    assert list(tmp_path.iterdir()) == []


def test_the_sqlite_store_does_not_import_the_supabase_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SUPABASE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_key_is_not_in_the_representation() -> None:
    assert "sb_secret_x" not in repr(SupabaseProject("https://project.supabase.co", "sb_secret_x"))
