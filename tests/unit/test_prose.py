"""Docstrings, comments and Markdown are written in plain English.

A phrase of `BANNED` may not occur at all. A construction of `LIMITS` may occur up to twice as often
per 1,000 words as in httpx 0.28.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

CHECKED = (".",)
NOT_OURS = {".programs", ".git", ".venv", "node_modules", "__pycache__"}

BANNED = [
    r"tell|tells|told|telling",
    r"return what",
    r"stands|lies|stand(?= (?:in|on|at|as|there)\b)(?! in for)",
    r"ones? that",
    r"anew|by now|by then|all the same|meanwhile|take[ns]? up(?! to)|took up",
    r"somebody|nobody|whoever",
]
LIMITS = {r"what(?![^.?!]*\?)": 2 * 0.37, r"whatever": 2 * 0.12}


class Line(NamedTuple):
    """One line of prose and its place."""

    file: str
    number: int
    text: str


def files() -> list[Path]:
    paths = [ROOT / name for name in CHECKED]
    assert [path for path in paths if not path.exists()] == []
    inside = (found for path in paths for found in ([path] if path.is_file() else path.rglob("*")))
    return sorted(
        {
            path
            for path in inside
            if path.suffix in (".py", ".md") and not NOT_OURS & set(path.relative_to(ROOT).parts)
        }
    )


def python_prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of all docstrings and comments, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                yield from enumerate(node.value.value.splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def markdown_prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside of code blocks, with their numbers."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, line


def prose() -> list[Line]:
    lines = []
    for path in files():
        name, source = str(path.relative_to(ROOT)), path.read_text()
        read = python_prose if path.suffix == ".py" else markdown_prose
        lines += [Line(name, *line) for line in read(source)]
    return [Line(name, number, without_code(text)) for name, number, text in lines]


def without_code(text: str) -> str:
    return re.sub(r"``?[^`]*``?", "", text)


def occurrences(lines: list[Line], pattern: str) -> list[str]:
    expression = re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    return [
        f"{line.file}:{line.number}: {match[0]}"
        for line in lines
        for match in expression.finditer(line.text)
    ]


def test_banned_phrases_do_not_occur():
    lines = prose()
    assert [found for pattern in BANNED for found in occurrences(lines, pattern)] == []


def test_other_constructions_are_rare():
    lines = prose()
    thousands_of_words = sum(len(line.text.split()) for line in lines) / 1000
    excess = {}
    for pattern, limit in LIMITS.items():
        found = occurrences(lines, pattern)
        if len(found) > limit * thousands_of_words:
            excess[f"{pattern}: at most {limit * thousands_of_words:.0f}"] = found
    assert excess == {}


def test_the_scan_reads_docstrings_comments_and_markdown():
    source = '"""Module.\n\nMore."""\nx = "text"  # Why.\n"""What x is."""\n'
    assert sorted(python_prose(source)) == [
        (1, "Module."),
        (2, ""),
        (3, "More."),
        (4, "# Why."),
        (5, "What x is."),
    ]
    assert list(markdown_prose("One\n```\ncode\n```\nTwo\n")) == [(1, "One"), (5, "Two")]


def test_the_scan_finds_each_construction():
    text = "He told nobody what one that stands here does anew, whatever it is."
    lines = [Line("a.md", 1, text)]
    found = [hit for pattern in (*BANNED, *LIMITS) for hit in occurrences(lines, pattern)]
    assert [hit.rpartition(" ")[2] for hit in found] == [
        "told", "stands", "that", "anew", "nobody", "what", "whatever",
    ]  # fmt: skip
