"""Which room may know which: arrows point one way, and nothing goes round in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import anatosegnet

ROOT = Path(anatosegnet.__file__).parent
FLOOR = {"errors", "console"}  # what everything stands on
BASE = FLOOR | {"files", "config"}
MAY_KNOW = {
    "errors": set(), "console": set(), "face": set(),
    "files": FLOOR, "metrics": FLOOR, "models": FLOOR, "losses": FLOOR,
    "config": BASE,
    "run": BASE,
    "network": BASE | {"run"},
    "sweep": BASE | {"run"},
    "run_list": BASE | {"run", "sweep"},
    "report": BASE | {"face", "metrics", "run"},
    "data": BASE | {"face", "metrics", "run"},
    "data.preparation": BASE | {"data", "report", "run"},
    "training": BASE | {"face", "data", "losses", "metrics", "models", "network", "report", "run",
                        "sweep"},
    "prediction": BASE | {"data", "metrics", "network", "report", "run"},
    "page": BASE | {"data", "metrics", "prediction", "report", "run"},
    "evaluation": BASE | {"data", "metrics", "network", "prediction", "report", "run"},
    "deployment": BASE | {"data", "evaluation", "metrics", "network", "prediction", "report",
                          "run"},
    "tuning": BASE | {"data", "run", "training"},
    "network_table": BASE | {"training"},
    "help": BASE, "cli": BASE | {"help"}, "__main__": BASE | {"help"},
}  # fmt: skip


def arrows() -> dict[str, set[str]]:
    """The modules of this package that each imports, in functions and for types too."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        known = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anatosegnet"):
                parent = (node.module or "").removeprefix("anatosegnet").removeprefix(".")
                for alias in node.names:
                    module = f"{parent}.{alias.name}".removeprefix(".")
                    known.add(module if module in names else parent or module)
    return found


def room(module: str) -> str:
    """The room that a module is in; a verb is a room of its own."""
    parts = module.split(".")
    own = parts[:2] == ["data", "preparation"] or parts[1:] == ["__main__"]
    return ".".join(parts[:2]) if own else parts[0]


def test_arrows_point_one_way() -> None:
    """Breaks if a room learns of one that builds on it, or one verb imports another."""
    wrong = []
    for module, known in arrows().items():
        verb = room(module) not in MAY_KNOW
        for other in sorted(known):
            inside = room(other) == room(module)
            down = room(other) in (MAY_KNOW if verb else MAY_KNOW[room(module)])
            if not inside and not down:
                wrong.append(f"{module} → {other}")
    assert not wrong


def test_nothing_goes_round() -> None:
    """Breaks if two modules import each other, at whatever distance."""
    TopologicalSorter(arrows()).prepare()


def test_rooms_are_there() -> None:
    """Breaks if the table above speaks of rooms that are gone."""
    rooms = {room(module) for module in arrows()}
    assert set(MAY_KNOW) <= rooms
