"""The structure of the code: which package may import which, and rules for some modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Each package with the first-party packages and modules that it may import, besides itself.
ALLOWED = {
    "domain": set(),
    "sandbox": {"domain"},
    "workspace": {"sandbox", "domain"},
    "agent": {"sandbox", "domain"},
    "scm": {"domain"},
    "store": {"domain"},
    "host": {"agent", "workspace", "scm", "store", "sandbox", "domain"},
    "activities": {
        "host", "agent", "workspace", "scm", "store", "sandbox", "domain", "settings",
    },
    "workflows": {"activities", "host", "domain"},
    "temporal": {"workflows", "activities", "store", "domain"},
    "api": {"temporal", "workflows", "activities", "store", "domain"},
    "fakes": {"domain"},
    "tools": {"domain", "settings"},
    "settings": {"domain"},
    "wiring": {
        "temporal", "workflows", "activities", "host", "agent", "workspace", "scm", "store",
        "sandbox", "domain", "settings",
    },
    "worker": {
        "temporal", "workflows", "activities", "host", "agent", "workspace", "scm", "store",
        "sandbox", "domain", "settings", "wiring",
    },
    "commands": {
        "fakes", "temporal", "workflows", "activities", "host", "agent", "workspace", "scm",
        "store", "sandbox", "domain", "settings", "wiring",
    },
    "cli": {
        "commands", "api", "temporal", "workflows", "activities", "host", "agent", "workspace",
        "store", "domain", "settings", "wiring", "worker",
    },
}  # fmt: skip
EXCEPTIONS: dict[str, set[str]] = {}

SOURCES = sorted(
    path
    for package in ALLOWED
    for path in [
        *(ROOT / package).rglob("*.py"),
        *[p for p in [ROOT / f"{package}.py"] if p.exists()],
    ]
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node


def forbidden_imports(path: Path) -> set[str]:
    allowed = ALLOWED[package_of(path)] | {package_of(path)} | EXCEPTIONS.get(name_of(path), set())
    imported = {module for module, _ in imports(ast.parse(path.read_text())) if module in ALLOWED}
    return imported - allowed


def test_imports_go_one_way():
    assert {
        name_of(path): forbidden for path in SOURCES if (forbidden := forbidden_imports(path))
    } == {}


def test_the_scan_sees_every_package():
    assert {package_of(path) for path in SOURCES} == set(ALLOWED)
    assert len(SOURCES) > 80


def reads_the_environment(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and ast.unparse(node) in {"os.environ", "os.getenv", "os.environb"}
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_only_the_settings_read_the_environment():
    readers = [name_of(path) for path in SOURCES if reads_the_environment(path)]
    assert [name for name in readers if not name.startswith("settings/")] == []


def defines_a_workflow(path: Path) -> bool:
    return "@workflow." in path.read_text() or "import workflow\n" in path.read_text()


SANDBOXED = [
    path for path in SOURCES if package_of(path) == "workflows" and defines_a_workflow(path)
]
DEFINING = [path for path in SANDBOXED if "@workflow.defn" in path.read_text()]


def test_the_scan_sees_the_workflows():
    assert len(DEFINING) >= 3


def reloaded_imports(path: Path) -> set[str]:
    """Return the first-party modules that are imported outside of `imports_passed_through`."""
    tree = ast.parse(path.read_text())
    passed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and "imports_passed_through" in ast.unparse(node.items[0])
        for inner in ast.walk(node)
    }
    ours = [(module, node) for module, node in imports(tree) if module in ALLOWED]
    return {module for module, node in ours if id(node) not in passed}


def test_workflow_modules_pass_first_party_imports_through():
    """A module that is not passed through is loaded again in every run."""
    assert {
        name_of(path): reloaded for path in SANDBOXED if (reloaded := reloaded_imports(path))
    } == {}


def test_workflows_import_names_not_modules():
    """`from package import module` is never passed through, even in the `with` block (measured)."""
    assert [
        (name_of(path), ast.unparse(node))
        for path in DEFINING
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in ALLOWED
    ] == []


CHANGING = {"random", "uuid", "secrets", "time", "os", "socket", "subprocess"}


def test_workflow_modules_import_nothing_nondeterministic():
    assert [
        (name_of(path), module)
        for path in SANDBOXED
        for module, _ in imports(ast.parse(path.read_text()))
        if module in CHANGING
    ] == []
    assert [name_of(path) for path in SANDBOXED if "utc_now" in path.read_text()] == []


FORBIDDEN_NAMES = {"manager", "helper", "helpers", "utils", "common", "base", "misc", "service"}


def test_module_names_say_what_the_module_contains():
    named = [name_of(path) for path in SOURCES if set(path.stem.split("_")) & FORBIDDEN_NAMES]
    assert named == []


def test_every_activity_is_registered_with_a_worker():
    """The workflow would wait for ever for an activity that no worker has."""
    defined = {
        node.name
        for path in (ROOT / "activities").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
        and any(ast.unparse(each) == "activity.defn" for each in node.decorator_list)
    }
    registered = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / "worker.py").read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert defined - registered == set()
