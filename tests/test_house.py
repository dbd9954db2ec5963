"""The house rules that a reader cannot see from one file: who may import whom, sizes, completeness, cleanliness."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]

# Who may import whom, by rooms of `optexp`; "config.schema" is a door: one module of a room and not the others. This is
# the plan of the house in CONTRIBUTING.md; a new room needs a line here, and a line that grows needs a reason.
GROUND = ("errors", "streams", "transfers")
PARTS = ("models", "nn", "datasets", "optimizers", "schedules", "instruments")
RECORDS = ("records", "report")
LABORATORIES = ("audit", "surfaces", "range_test", "curvature", "optimizer_table", "attribution")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "__init__": (),
    "__main__": ("cli",),
    "errors": (),
    "streams": ("errors",),
    "ending": ("errors",),
    "statistics": ("errors",),
    "transfers": (),
    "override_words": (),
    "pairing": ("errors",),
    "help": ("errors",),
    "dropped_arguments": ("errors", "optimizers.muon"),
    "nn": GROUND,
    "models": (*GROUND, "nn", "pairing"),
    "datasets": (*GROUND, "pairing"),
    "optimizers": GROUND,
    "schedules": ("errors",),
    "instruments": (*GROUND, "nn", "optimizers.construction", "optimizers.stacked"),
    "records": ("errors", "__init__"),
    "report": ("errors", "records", "diagnosis"),
    "diagnosis": ("errors", "records", "override_words"),
    "monitor": ("errors", "transfers", "records", "diagnosis", "instruments"),
    "config": ("errors", "help", "override_words", "records.run_directory"),
    "engine": (*GROUND, *PARTS, "config.schema", "records.files", "records.sinks"),
    "assemble": (*GROUND, *PARTS, "engine", "config"),
    "fuse": ("errors", "nn", "optimizers", "engine", "assemble"),
    "recording": (*RECORDS, "errors", "diagnosis", "engine", "config", "assemble"),
    "run": ("errors", "engine", "assemble", "recording", "records.group_console"),
    "sweeps": (
        "errors",
        "ending",
        "override_words",
        *RECORDS,
        "config",
        "engine",
        "assemble",
        "fuse",
        "recording",
        "run",
        "tasks",
    ),
    "task_record": (*RECORDS, "errors", "config", "run", "ending"),
    "tasks": (
        *("errors", "override_words", *RECORDS, "config", "engine", "assemble", "run", "task_record", "sweeps"),
        *("instruments.step_size", *LABORATORIES),
    ),
    "audit": (*GROUND, *RECORDS, "config", "optimizers", "engine"),
    "surfaces": (*GROUND, "override_words", *RECORDS, "config", "optimizers", "instruments"),
    "range_test": (*GROUND, *PARTS, *RECORDS, "config", "engine", "assemble", "fuse"),
    "curvature": (*GROUND, *PARTS, *RECORDS, "config", "engine", "assemble"),
    "optimizer_table": (
        *GROUND,
        "override_words",
        *PARTS,
        *RECORDS,
        "config",
        "engine",
        "assemble",
        "sweeps",
        "statistics",
    ),
    "attribution": (*RECORDS, "errors", "override_words", "config", "sweeps", "statistics"),
    "studies": (
        *GROUND,
        "override_words",
        "ending",
        "statistics",
        "help",
        *RECORDS,
        "config",
        "sweeps",
        "curvature",
        "range_test",
    ),
    "verification": (
        *RECORDS,
        "errors",
        "override_words",
        "diagnosis",
        "config",
        "sweeps",
        "statistics",
        "attribution",
    ),
    "commands": ("errors", *RECORDS, "diagnosis", "config", "studies.study", "__init__"),
    "cli": ("errors", "help", "override_words", "config", "commands", "tasks", "sweeps", "studies", "__init__"),
}
# Inside a function only, so that `optexp runs` and `optexp --help` never wait for torch.
MAY_IMPORT_LAZILY: dict[str, tuple[str, ...]] = {
    "commands": ("tasks", "sweeps", "run", "assemble", "engine", "studies", "curvature", "verification")
}

# What lies below the command line knows its data source and torch, and nothing of Hydra, TensorBoard or the terminal.
LIBRARIES: dict[str, set[str]] = {
    "errors": set(),
    "streams": {"torch"},
    "ending": set(),
    "statistics": {"numpy", "scipy"},
    "transfers": {"torch"},
    "override_words": set(),
    "pairing": {"torchvision"},
    "help": {"rich", "yaml"},
    "dropped_arguments": {"torch"},
    "nn": {"torch"},
    "models": {"torch", "torchvision"},
    "datasets": {"torch", "torchvision", "numpy", "sklearn", "PIL"},
    "optimizer_table": {"torch"},
    "attribution": {"numpy", "scipy"},
    "verification": set(),
    "optimizers": {"torch", "pytorch_optimizer"},
    "schedules": set(),
    "instruments": {"torch", "numpy"},
    "surfaces": {"torch"},
    "curvature": {"torch"},
    "engine": {"torch", "numpy", "safetensors"},
    "audit": {"torch", "numpy"},
    "diagnosis": set(),
    "monitor": {"torch"},
    "records": {"yaml", "rich", "tensorboard", "google", "google_crc32c"},
    "report": {"rich", "matplotlib", "numpy", "scipy", "jinja2"},
    "studies": {"torch", "numpy", "scipy", "yaml"},
}


def sources() -> list[Path]:
    return sorted((REPO / "optexp").rglob("*.py"))


def module_of(path: Path) -> str:
    """`optexp/nn/dropout.py` is `nn.dropout`."""
    return ".".join(path.relative_to(REPO / "optexp").with_suffix("").parts)


MODULES = {module_of(path) for path in sources()}


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (full dotted name, is it inside a function) of everything a module imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        else:
            yield from imports(node, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def own_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the modules of optexp that a file imports, without the leading `optexp.`, as `module_of` names them."""
    for name, lazy in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts.pop(0) == "optexp":
            while ".".join(parts) not in MODULES and ".".join([*parts, "__init__"]) not in MODULES:
                parts.pop()  # a name defined in a module, not a module
            yield ".".join(parts if ".".join(parts) in MODULES else [*parts, "__init__"]), lazy


def within(module: str, allowed: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def test_every_room_has_its_line_in_the_plan() -> None:
    rooms = {module.split(".")[0] for module in MODULES}
    assert rooms <= MAY_IMPORT.keys(), f"say in MAY_IMPORT what these may import: {sorted(rooms - MAY_IMPORT.keys())}"


def test_rooms_import_only_what_lies_below_them() -> None:
    wrong = []
    for path in sources():
        room = module_of(path).split(".")[0]
        for name, lazy in own_imports(path):
            allowed = (room, *MAY_IMPORT[room], *(MAY_IMPORT_LAZILY.get(room, ()) if lazy else ()))
            if not within(name, allowed):
                wrong.append(f"{path.relative_to(REPO)} imports optexp.{name}{' in a function' if lazy else ''}")
    assert not wrong, "\n".join(wrong)


def test_rooms_use_only_their_libraries() -> None:
    wrong = []
    for path in sources():
        allowed = LIBRARIES.get(module_of(path).split(".")[0])
        for name, _ in imports(ast.parse(path.read_text())):
            library = name.split(".")[0]
            known = {"optexp", *sys.stdlib_module_names}
            if allowed is not None and library not in known | allowed:
                wrong.append(f"{path.relative_to(REPO)} imports {library}")
    assert not wrong, "\n".join(wrong)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of a graph, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for neighbour in sorted(graph.get(node, ())):
                if found := visit(neighbour, [*path, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_and_no_room_imports_itself_through_others() -> None:
    modules: dict[str, set[str]] = {}
    rooms: dict[str, set[str]] = {}
    for path in sources():
        module = module_of(path)
        names = {name for name, _ in own_imports(path)}
        modules[module] = names - {module}
        room = module.split(".")[0]
        # Doors: plain dataclasses, the names in a run directory, writing a file, how a task is found, and training.
        names -= {
            "config.schema",
            "records.run_directory",
            "records.files",
            "records.sinks",
            "tasks.__init__",
            "tasks.train",
        }
        rooms.setdefault(room, set()).update({name.split(".")[0] for name in names} - {room})
    assert cycle(modules) == []
    assert cycle(rooms) == []


def test_the_command_line_starts_without_torch() -> None:
    """Importing them all, one after the other, brings in nothing that takes a second to import."""
    light = ("cli", "commands", "records", "report", "config.check", "config.compose", "config.schema", "errors")
    names = [f"optexp.{module.removesuffix('.__init__')}" for module in sorted(MODULES) if within(module, light)]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'tensorflow'} & sys.modules.keys()\n"
        "    assert not heavy, f'{name} imports {sorted(heavy)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *names], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"optexp.cli", "optexp.records.run_directory", "optexp.commands.runs"} <= set(names)


def test_pyproject_lists_every_package() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    folders = {path.parent for path in sources()}
    packages = {".".join(folder.relative_to(REPO).parts) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == packages | {"optexp.conf"}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := REPO / name).is_file()]


def test_no_python_file_needs_a_second_room() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in tracked_files() if path.suffix == ".py"}
    assert {str(path.relative_to(REPO)): count for path, count in lines.items() if count > 400} == {}


# Folders of somebody's machine, and hosts that belong into pip's configuration. (Written so that this file is clean.)
PRIVATE = re.compile(
    r"(?<![\w.~/$}-])/(?:home|Users|root|work|mnt)/\w"
    r"|[\w.-]+[.]pythonhosted[.]org|\bpypi[.]org|download[.]pytorch[.]org|--(?:extra-)?index[-]url"
)


@pytest.mark.parametrize(
    "text", ["see /home/" + "me/x", "'/root/" + "a'", "https://pypi" + ".org/simple", "--index" + "-url x"]
)
def test_private_names_are_recognized(text: str) -> None:
    assert PRIVATE.search(text)


def test_no_file_names_a_private_path_or_a_package_index() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{path.relative_to(REPO)}: {match.group()}" for match in PRIVATE.finditer(text)]
    assert not found, "\n".join(found)
