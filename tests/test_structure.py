"""The shape of the house: which room may import which, and what stands nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room with the first-party rooms and modules it may import; everybody may import itself.
ALLOWED = {
    "domain": set(),
    "sandbox": {"domain"},
    "workspace": {"sandbox", "domain"},
    "agent": {"sandbox", "domain"},
    "store": {"domain", "settings"},
    "activities": {"workspace", "agent", "sandbox", "store", "domain"},
    "workflows": {"activities", "store", "domain"},
    "api": {"workflows", "activities", "store", "domain"},
    "demo": {"domain"},
    "settings": {"agent", "sandbox", "domain"},
    "composition": {
        "workflows", "activities", "workspace", "agent", "sandbox", "store", "settings",
    },
    "worker": {
        "workflows", "activities", "workspace", "agent", "sandbox", "store", "domain", "settings",
        "composition",
    },
    "up": {"agent", "settings"},
    "cli": {
        "api", "workflows", "activities", "agent", "store", "domain", "settings", "composition",
        "worker", "up", "demo", "doctor",
    },
    "doctor": {"workflows", "activities", "workspace", "agent", "sandbox", "store", "domain",
               "settings", "composition"},
}  # fmt: skip
EXCEPTIONS = {"demo/walkthrough.py": {"settings", "up"}}

SOURCES = sorted(
    path
    for room in ALLOWED
    for path in [*(ROOT / room).rglob("*.py"), *[p for p in [ROOT / f"{room}.py"] if p.exists()]]
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path: Path):
    allowed = ALLOWED[room_of(path)] | {room_of(path)} | EXCEPTIONS.get(name_of(path), set())
    taken = {module for module, _ in imports(ast.parse(path.read_text())) if module in ALLOWED}
    assert taken <= allowed


def test_the_scan_sees_the_whole_house():
    assert {room_of(path) for path in SOURCES} >= set(ALLOWED) - {"doctor"}
    assert len(SOURCES) > 80


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_settings_read_the_environment(path: Path):
    if room_of(path) == "settings":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert not (node.value.id == "os" and node.attr in {"environ", "getenv", "environb"})


def defines_a_workflow(path: Path) -> bool:
    return "@workflow." in path.read_text() or "import workflow\n" in path.read_text()


WORKFLOW_MODULES = [path for path in SOURCES if room_of(path) == "workflows"]
SANDBOXED = [path for path in WORKFLOW_MODULES if defines_a_workflow(path)]


@pytest.mark.parametrize("path", SANDBOXED, ids=name_of)
def test_workflow_modules_pass_first_party_imports_through(path: Path):
    tree = ast.parse(path.read_text())
    passed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and "imports_passed_through" in ast.unparse(node.items[0])
        for inner in ast.walk(node)
    }
    for module, node in imports(tree):
        assert module not in ALLOWED or id(node) in passed, f"{module} is loaded anew at every run"


DEFINING = [path for path in SANDBOXED if "@workflow.defn" in path.read_text()]


@pytest.mark.parametrize("path", DEFINING, ids=name_of)
def test_workflows_import_names_and_no_modules(path: Path):
    """`from room import module` is never passed through, even where it is asked for (measured)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ALLOWED, f"{ast.unparse(node)} is loaded anew at every run"


@pytest.mark.parametrize("path", SANDBOXED, ids=name_of)
def test_workflow_modules_take_nothing_that_changes_from_outside(path: Path):
    modules = {module for module, _ in imports(ast.parse(path.read_text()))}
    assert not modules & {"random", "uuid", "secrets", "time", "os", "socket", "subprocess"}
    assert "utc_now" not in path.read_text()


def documented_in_readme() -> set[str]:
    table = (ROOT / "README.md").read_text().split("## Configuration")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))


def documented_in_example() -> set[str]:
    return set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def read_by_settings() -> set[str]:
    """The names that settings.py asks for, by the text of its source."""
    source = (ROOT / "settings.py").read_text()
    asked = re.findall(r"self\._[a-z_]+\(\s*\"([A-Z_]+)\"", source)
    return set(asked) - {"HOME", "PATH"}


def test_every_setting_is_documented_twice():
    assert read_by_settings() == documented_in_readme() == documented_in_example()


FORBIDDEN_NAMES = {"manager", "helper", "helpers", "utils", "common", "base", "misc", "service"}


def test_no_module_is_named_after_nothing():
    for path in SOURCES:
        assert not set(path.stem.split("_")) & FORBIDDEN_NAMES, path


def test_every_activity_is_offered_by_a_worker():
    """One that is not would be waited for without end."""
    defined = {
        node.name
        for path in (ROOT / "activities").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
        and any(ast.unparse(each) == "activity.defn" for each in node.decorator_list)
    }
    offered = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / "worker.py").read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert defined - offered == set()
