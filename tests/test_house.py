"""The architecture as a test: who may import whom, what may be touched where, and that the README's tree is true."""

import ast
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for room in ("launch", "p2p", "shards") for p in sorted((ROOT / room).rglob("*.py"))]

MAY_IMPORT = {
    "launch": {"p2p", "launch"},
    "shards": {"shards", "p2p.data"},
    "p2p.data": {"p2p.data"},
    "p2p.networks": {"p2p.networks", "p2p.noise"},
    "p2p.tasks": {"p2p.tasks", "p2p.losses", "p2p.networks", "p2p.noise", "p2p.dist"},
    "p2p.losses": {"p2p.noise"},
    "p2p.noise": set(),
    "p2p.forward": {"p2p.watch"},
    "p2p.engine": {"p2p.adam", "p2p.dist", "p2p.exact", "p2p.forward"},
    "p2p.zero": {"p2p.adam", "p2p.dist", "p2p.engine"},
    "p2p.exact": {"p2p.dist"},
    "p2p.adam": set(),
    "p2p.schedule": set(),
    "p2p.strict": set(),
    "p2p.metrics": {"p2p.metrics"},
    "p2p.config": {"p2p.strict"},
    "p2p.dist": set(),
    "p2p": {"p2p"},
}
"""Room -> what of ours it may import; the longest name that fits decides."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def inside(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports; `from a import b` counts as a.b where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                exists = (ROOT / whole.replace(".", "/")).with_suffix(".py").is_file()
                found.add(whole if exists else str(node.module))
    return {name for name in found if name.split(".")[0] in ("launch", "p2p", "shards", "tests")}


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_go_one_way(path):
    name = module(path)
    room = max((room for room in MAY_IMPORT if inside(name, {room})), key=len)
    wrong = {other for other in imports(path) if not inside(other, MAY_IMPORT[room])}
    assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "p2p")], ids=module)
def test_the_library_leaves_the_process_alone(path):
    """No argv, no environment, no printing, no exit: a notebook may call it twice."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            touched = f"{node.value.id}.{node.attr}"
            assert touched not in ("sys.argv", "sys.exit"), f"{path}:{node.lineno}"
            assert touched != "os.environ" or path.name == "dist.py", f"{path}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit", "input"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_pickle(path):
    text = path.read_text()
    assert "import pickle" not in text
    assert not re.search(r"torch\.load\((?!.*weights_only=True)", text)
    assert not re.search(r"np\.load\((?!.*allow_pickle=False)", text)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_public_functions_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} does not say what it holds"
    assert len(path.read_text().splitlines()) <= 400, f"{path} has two jobs"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef) and (path.name, node.name) != (
            "loop.py",
            "train",
        ):  # the one long function
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} is long"


CONTRACTS = {
    "p2p/tasks": "p2p/tasks/*.py",
    "p2p/networks": "p2p/networks/*.py",
    "p2p/data": "p2p/data/s[ha]*.py",  # ShardSet, Samples
    "p2p/data/views": "p2p/data/views/*.py",
    "p2p/metrics": "p2p/metrics/*.py",
    "p2p/data/mixed.py": "p2p/data/mixed.py",
}
"""Where the classes behind a contract are defined: nobody else asks which of them something is."""


def classes_of(pattern: str) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in ROOT.glob(pattern)]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("path", [p for p in SOURCES if not p.is_relative_to(ROOT / "shards")], ids=module)
def test_nobody_asks_which_class_a_task_a_network_or_a_set_is(path):
    """What differs is asked of the contract, or a new method would need a line here, too."""
    where = path.relative_to(ROOT).as_posix()
    foreign = {name for own, pattern in CONTRACTS.items() if not where.startswith(own) for name in classes_of(pattern)}
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            asked |= {name.attr for name in ast.walk(node.args[1]) if isinstance(name, ast.Attribute)}
            assert not asked & foreign, f"{path}:{node.lineno} asks for {asked & foreign}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("p2p.tasks"):
            methods = {"Pix2Pix", "Pix2PixHD"} & {alias.name for alias in node.names}
            assert where.startswith("p2p/tasks") or not methods, f"{path}:{node.lineno} knows {methods}"


def test_packing_needs_no_torch():
    code = "import sys, shards.pack; assert 'torch' not in sys.modules and 'skimage' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_console_scripts_are_the_modules_mains():
    ours = {e.name: e for e in entry_points(group="console_scripts") if e.name.startswith("p2p-")}
    commands = "train translate status convert cluster pack download index order show verify"
    assert set(ours) == {f"p2p-{command}" for command in commands.split()}
    for entry in ours.values():
        assert callable(entry.load())


def test_the_readme_lists_every_file():
    text = (ROOT / "README.md").read_text()
    for path in [*SOURCES, *(ROOT / "configs").glob("*.yaml")]:
        if path.name != "__init__.py":
            assert re.search(rf"\b{re.escape(path.name)}\b", text), f"README.md's tree lacks {path.relative_to(ROOT)}"


def test_the_readmes_links_exist():
    prose = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!http)([^)#]+)", prose):
        assert (ROOT / link).exists(), link
