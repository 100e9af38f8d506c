"""The documentation of the settings is complete and current."""

from __future__ import annotations

import re

from tools.settings_page import BEGIN, END, ROOT, environment_example, readme_tables, with_tables

README = (ROOT / "README.md").read_text()


def test_readme_is_current():
    assert README.count(BEGIN) == README.count(END) == 1
    assert with_tables(README) == README, "README.md is stale. Run `make docs`."


def test_environment_example_is_current():
    text = (ROOT / ".env.example").read_text()
    assert text == environment_example(), ".env.example is stale. Run `make docs`."


def test_both_have_the_same_variables_and_none_of_the_system():
    listed = re.findall(r"^\| `([A-Z_]+)` \|", readme_tables(), re.MULTILINE)
    shown = re.findall(r"^# ([A-Z_]+)=", environment_example(), re.MULTILINE)
    assert listed == shown
    assert len(set(listed)) == len(listed)
    assert {"PORT", "GITHUB_TOKEN", "SANDBOX_MIN_FREE_GB"} <= set(listed)
    assert not {"HOME", "PATH"} & set(listed)


def test_new_tables_replace_old_ones():
    assert (
        with_tables(f"a\n{BEGIN}\nold\n{END}\nb\n")
        == f"a\n{BEGIN}\n\n{readme_tables()}\n{END}\nb\n"
    )
