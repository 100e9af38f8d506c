"""The documentation of all settings, made from `settings`: `make docs`.

Writes `.env.example`, and the tables of README.md between two comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from settings import Settings
from settings.fields import Group

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- Settings: made by `make docs` -->"
END = "<!-- End of the settings -->"

_INTRODUCTION = """\
# Settings of the orchestrator. Made by `make docs`; README.md explains each setting.
#
# Each line shows a default. `make up` needs only GITHUB_TOKEN and a credential of Claude, such as
# ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN. A secret can be in a file instead: set NAME_FILE to
# its path, as in GITHUB_TOKEN_FILE=/run/secrets/github-token.
"""


def environment_example() -> str:
    """Return the content of `.env.example`."""
    sections = [_INTRODUCTION]
    for group in _groups():
        lines = [
            f"# {field.validation_alias}={field.default or ''}" for field in _documented(group)
        ]
        sections.append("\n".join([f"# {group.title}", *lines, ""]))
    return "\n".join(sections)


def readme_tables() -> str:
    """Return the tables of README.md, one for each group."""
    return "\n".join(line for group in _groups() for line in _table(group))


def with_tables(readme: str) -> str:
    """Return the text of README.md with the tables as they are now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{readme_tables()}\n{END}{after}"


def _groups() -> Iterator[type[Group]]:
    for field in Settings.model_fields.values():
        group = field.annotation
        assert isinstance(group, type)
        assert issubclass(group, Group)
        yield group


def _documented(group: type[Group]) -> Iterator[FieldInfo]:
    return (field for field in group.model_fields.values() if field.description)


def _table(group: type[Group]) -> Iterator[str]:
    yield f"**{group.title}**\n"
    yield "| Variable | Meaning | Default |"
    yield "|---|---|---|"
    for field in _documented(group):
        extra = field.json_schema_extra
        shown = extra["shown"] if isinstance(extra, dict) else ""
        cells = (f"`{field.validation_alias}`", field.description, shown)
        yield f"| {' | '.join(str(cell) for cell in cells)} |"
    yield ""


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text()))
    (ROOT / ".env.example").write_text(environment_example())
