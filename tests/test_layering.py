"""The stair of the house: what each room may import, held against the imports that are there."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sklearn_source"
# From the top of the stair to its foot; a room imports from those further down. CONTRIBUTING.md shows this list.
STAIR = (
    "utils.estimator_checks",
    "utils.discovery",
    "inspection",
    "attribution",
    "model_selection",
    "base",
    "curvature",
    "metrics",
    "retraining",
    "gradients",
    "trajectory",
    "diffusion",
    "network",
    "loss",
    "stochastic",
    "rows",
    "modules",
    "datasets",
    "utils",
)


def room_of(module):
    """The room of a module of the package, "" for the package itself."""
    parts = module.split(".")[1:]
    return next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in STAIR), "")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """(line, module imported from, name) of every import from the package itself in a file."""
    name = name_of(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *(node.module.split(".") if node.module else [])])
            if module.split(".")[0] == "sklearn_source":
                for alias in node.names:
                    room = f"sklearn_source.{alias.name}"  # a room taken whole
                    yield node.lineno, room if module == "sklearn_source" and room_of(room) else module, alias.name


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_the_stair_and_through_the_rooms_door(path):
    own, wrong = room_of(name_of(path)), []
    for line, module, name in imports(path):
        target = room_of(module)
        if target == own:
            continue
        if own and (not target or STAIR.index(target) < STAIR.index(own)):
            wrong.append(f"line {line}: {own} imports {name} from {target}, which is further up")
        private = any(part.startswith("_") for part in module.split(".")[2:])
        if private and target != "utils":  # utils has no door: its files are the helpers
            wrong.append(f"line {line}: {name} comes from the private {module}; export it from the room {target}")
    assert not wrong, "\n".join(wrong)


def test_gradients_need_torch_alone():
    """Besides the package and the standard library."""
    foreign = set()
    for path in (PACKAGE / "gradients").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                foreign |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                foreign.add(node.module.split(".")[0])
    assert not foreign & {"skorch", "sklearn", "scipy", "joblib"}
    assert {room_of(module) for path in (PACKAGE / "gradients").rglob("*.py") for _, module, _ in imports(path)} <= {
        "gradients",
        "utils",
    }


def test_rooms_export_what_is_used():
    """What a room exports is public (documented in api.rst) or used by another room, the tests or the benchmarks."""
    documented = (ROOT / "docs" / "api.rst").read_text().split()
    documented = {word.split(".")[-1] for word in documented}
    used = {
        (room_of(module), name) for path in FILES for _, module, name in imports(path) if not path.name == "__init__.py"
    }
    elsewhere = " ".join(
        path.read_text() for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    )
    idle = []
    for room in STAIR:
        init = PACKAGE.joinpath(*room.split(".")) / "__init__.py"
        tree = ast.parse(init.read_text()) if init.exists() else ast.parse("")
        for node in tree.body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
                names = ast.literal_eval(node.value)
                idle += [
                    f"{room}.{n}" for n in names if n not in documented and (room, n) not in used and n not in elsewhere
                ]
    assert not idle


def test_a_file_is_found_by_its_name():
    """No two rooms have a private file of the same name."""
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_the_stair_is_the_one_that_contributors_read():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    shown = [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("  | `")]
    assert [room for room in shown if room in STAIR] == list(STAIR)
