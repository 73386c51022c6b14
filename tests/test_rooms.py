"""The rooms of the package: imports point one way, also late and type-only ones, and h5py has one room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "compositeh5"

LEVELS = [
    {"_version", "errors"},
    {"box"},
    {"storage"},
    {"kinds"},
    {"composite"},
    {"trees"},
    {"astropy", "dask", "photutils", "preview", "fits", "comparison", "butler", "lsst_images"},
    {"cli", "demo", "__main__"},
]
"""What may be imported by what stands below it; within a level, a room imports only itself, but for `BESIDE`."""

BESIDE = {
    ("comparison", "fits"),  # FITS files are compared, too
    ("butler", "fits"),  # conversions put what was read from FITS files
    ("butler", "lsst_images"),  # a Butler of lsst.images' datasets
    ("cli", "demo"),  # `compositeh5 demo`
    ("__main__", "cli"),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The folder, or the single module, of the package's root that a module is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "compositeh5"


def imports(module: str) -> Iterator[tuple[str, str, int]]:
    """Each module and name that a module imports anywhere in its text, and the line."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                if f"{base}.{alias.name}" in MODULES:
                    yield f"{base}.{alias.name}", "", node.lineno
                else:
                    yield base, alias.name, node.lineno


def test_no_circle_of_modules() -> None:
    graph = {module: {name for name, _, _ in imports(module) if name in MODULES} - {module} for module in MODULES}
    # A package's own __init__ may gather what its modules define: they never import from it in turn.
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_import_upwards() -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    wrong = []
    for module in MODULES.keys() - {"compositeh5"}:
        for name, _, line in imports(module):
            if name in MODULES and name != "compositeh5":
                here, there = room(module), room(name)
                if here != there and level[there] >= level[here] and (here, there) not in BESIDE:
                    wrong.append(f"{MODULES[module]}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_private_name_of_another_room() -> None:
    wrong = []
    for module in MODULES:
        for name, attribute, line in imports(module):
            if name in MODULES and room(name) != room(module):
                private = [part for part in [*name.split(".")[1:], attribute] if part.startswith("_")]
                if private and private != ["_version"] and not attribute.startswith("__"):
                    wrong.append(f"{MODULES[module]}:{line} imports {name} {attribute}")
    assert not wrong, "\n".join(wrong)


def own_attributes(tree: ast.AST) -> Iterator[str]:
    """The names that a module gives to functions, classes and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_no_private_attribute_of_another_room() -> None:
    trees = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
    rooms: dict[str, set[str]] = {}
    for module, tree in trees.items():
        rooms.setdefault(room(module), set()).update(own_attributes(tree))
    wrong = []
    for module, tree in trees.items():
        others = set().union(*(names for name, names in rooms.items() if name != room(module)))
        private = {name for name in others - rooms[room(module)] if name.startswith("_") and not name.startswith("__")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in private and ast.unparse(node.value) != "self":
                wrong.append(f"{MODULES[module]}:{node.lineno} uses {node.attr}")
    assert not wrong, "\n".join(wrong)


def test_only_storage_imports_h5py() -> None:
    users = {room(module) for module in MODULES for name, _, _ in imports(module) if name.split(".")[0] == "h5py"}
    assert users == {"storage"}


def test_every_module_has_its_level() -> None:
    assert {room(module) for module in MODULES} - {"compositeh5"} == set().union(*LEVELS)
