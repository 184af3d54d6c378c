"""Imports go one way, `import torchdnc` needs torch only, nothing is unpickled, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import torchdnc

PACKAGE = Path(torchdnc.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

LAYERS = ["checks", "types", "ops", "engines", "nn", "training", "bench", "studies", "commands", "cli"]
"""Each may import those before it."""
DATA = ["tasks", "inspector"]
"""These import `types` and `checks` alone; from `training` on they may be imported."""
MAY_IMPORT = {part: {"types", "checks"} for part in DATA}
MAY_IMPORT |= {part: set(LAYERS[:place]) for place, part in enumerate(LAYERS)}
for later in LAYERS[LAYERS.index("training") :]:
    MAY_IMPORT[later] |= set(DATA)
MAY_IMPORT[""] = MAY_IMPORT["training"] - set(DATA)
"""The package itself, under the empty name, exports models."""

PRINTERS = {"rich", "tyro"}
PICKLERS = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLERS |= {"torch.load", "torch.save", "torch.jit", "torch.package", "torch.serialization"}

TORCHS_OWN = {
    "torch",
    "torchgen",
    "functorch",
    "typing_extensions",
    "filelock",
    "fsspec",
    "optree",
    "setuptools",
}
TORCHS_OWN |= {"_distutils_hack", "jinja2", "markupsafe", "mpmath", "sympy", "networkx", "numpy"}
"""torch and what it brings along."""


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name):
    """The part of the package that a dotted name lies in; what the package itself exports lies in `nn`."""
    second = name.split(".")[1] if "." in name else ""
    return second if second in MAY_IMPORT and second else "nn"


def imports(nodes, package=""):
    """Full dotted names of what these nodes import inside this package, as `module.name`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of(name, modules):
    return any(name == module or name.startswith(module + ".") for module in modules)


def wrong_imports(source, module, is_package=False):
    """Imports, wherever in the module they stand, that go against the order."""
    own = module.partition(".")[2].split(".")[0]
    assert own in MAY_IMPORT, f"{own} has no place in the order of imports"
    package = module if is_package else module.rpartition(".")[0]
    names = [name for name in imports(ast.walk(ast.parse(source)), package) if is_of(name, {"torchdnc"})]
    return [name for name in names if part_of(name) not in MAY_IMPORT[own] | {own}]


HARMLESS = ("torch.serialization.add_safe_globals", "torch.serialization")


def picklers(source):
    """Ways to pickle or unpickle that a module imports, calls or allows."""
    nodes = list(ast.walk(ast.parse(source)))
    # Allowing a class of plain tensors is what keeps `torch.load` from having to unpickle.
    nodes = [node for node in nodes if not (isinstance(node, ast.Attribute) and ast.unparse(node) in HARMLESS)]
    dotted = [*imports(nodes), *(ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute))]
    allowed = [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
    ]
    return [name for name in dotted if is_of(name, PICKLERS)] + allowed


every_source = pytest.mark.parametrize("path", SOURCES, ids=module_of)


@every_source
def test_imports_go_one_way(path):
    assert not wrong_imports(path.read_text(), module_of(path), path.name == "__init__.py")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("torchdnc.types", "from torchdnc import ops"),
        ("torchdnc.types", "import torchdnc.ops.access"),
        ("torchdnc.checks", "from torchdnc.ops import oneplus"),
        ("torchdnc.ops.access", "from torchdnc.engines import reference"),
        ("torchdnc.ops.access", "from .. import nn"),
        ("torchdnc.ops.access", "from ..nn.dnc import DNC"),
        ("torchdnc.ops.access", "def late():\n    from torchdnc import DNC"),
        ("torchdnc.engines.reference", "import torchdnc"),
        ("torchdnc.nn.dnc", "from torchdnc.training import loop"),
        ("torchdnc.nn.dnc", "from torchdnc.tasks import TASKS"),
        ("torchdnc.tasks.copy", "from torchdnc.ops import oneplus"),
        ("torchdnc.tasks.copy", "from torchdnc import LSTM"),
        ("torchdnc.inspector.page", "from torchdnc.tasks.base import Batch"),
        ("torchdnc.training.loop", "from torchdnc.cli import main"),
        ("torchdnc.training.loop", "from torchdnc.bench import run"),
        ("torchdnc.bench.steps", "from torchdnc.studies import capacity"),
        ("torchdnc.bench.steps", "from torchdnc.commands import parsing"),
        ("torchdnc.commands.train", "from torchdnc.cli import main"),
        ("torchdnc", "from torchdnc.training import loop"),
    ],
)
def test_an_import_against_the_order_is_told(module, source):
    assert wrong_imports(source, module)


def test_a_module_without_a_place_in_the_order_is_told():
    with pytest.raises(AssertionError, match="elsewhere has no place"):
        wrong_imports("import torch", "torchdnc.elsewhere")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("torchdnc.ops.access", "from .content import content_weights\nfrom ..types import PAPER"),
        ("torchdnc.training.loop", "from torchdnc.tasks import TASKS\nfrom torchdnc import DNC"),
        ("torchdnc.tasks.copy", "from torchdnc.types import Memory\nimport torch"),
        ("torchdnc.tasks.copy", "from torchdnc.checks import check_size"),
        ("torchdnc.commands.study", "from torchdnc.studies import capacity"),
        ("torchdnc.bench.steps", "from torchdnc.training.report import RunError"),
        ("torchdnc.cli", "from torchdnc.commands.bench import bench_command"),
    ],
)
def test_an_import_along_the_order_is_allowed(module, source):
    assert not wrong_imports(source, module)


@every_source
def test_nothing_is_pickled(path):
    assert not picklers(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def late():\n    from pickle import loads",
        "import torch\ntorch.load('a')",
        "from torch import save",
        "import torch\ntorch.serialization.load('a')",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
    ],
)
def test_pickling_is_told(source):
    assert picklers(source)


@every_source
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= 400


def test_only_the_command_line_loads_what_it_prints_with():
    """rich and tyro are needed by the command line and by modules that nothing else imports when it is loaded."""
    needs = {
        module_of(path): set(imports(ast.parse(path.read_text()).body, module_of(path).rpartition(".")[0]))
        for path in SOURCES
    }
    printing = {module for module, names in needs.items() if any(is_of(name, PRINTERS) for name in names)}
    assert "torchdnc.commands.parsing" in printing
    for module, names in needs.items():
        if module not in printing and not is_of(module, {"torchdnc.cli", "torchdnc.commands"}):
            assert not [name for name in names if is_of(name, printing)]


def loaded_by(statement):
    """What a fresh interpreter prints on a statement, and what it then has beside the standard library."""
    ask = "import sys; print('loaded', *{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", f"{statement}\n{ask}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    printed, _, modules = run.stdout.rpartition("loaded ")
    return printed + run.stderr, set(modules.split()) - sys.stdlib_module_names - {"__main__", "__mp_main__"}


def test_importing_the_package_prints_nothing_and_loads_torch_only():
    printed, loaded = loaded_by("import torchdnc")
    assert printed == ""
    assert loaded - TORCHS_OWN == {"torchdnc"}


def test_what_an_import_prints_and_loads_is_told():
    printed, loaded = loaded_by("import rich; print('here')")
    assert printed == "here\n"
    assert "rich" in loaded - TORCHS_OWN
