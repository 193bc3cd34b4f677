"""Packages are ordered along the data flow, and each imports only from those before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cxrkeras

PACKAGE = Path(cxrkeras.__file__).parent
ROOMS = [
    "errors",
    "text",
    "files",
    "progress",
    "tensorflow_import",
    "labels",
    "config",
    "data",
    "phantoms",
    "records",
    "models",
    "scoring",
    "explain",
    "training",
    "reports",
    "predict",
    "app",
    "cli",
]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "cxrkeras":
                yield from (f"cxrkeras.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room_of(module):
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_go_one_way(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    here = parts[0]
    assert here in ROOMS, f"{here} is not listed in ROOMS"
    for module in imported_modules(path):
        if not module.startswith("cxrkeras.") or module == "cxrkeras.__version__":
            continue
        there = room_of(module)
        allowed = ROOMS.index(there) < ROOMS.index(here) or (there == here and len(parts) > 1)
        assert allowed, f"{path} imports {module}, which does not come before it"


def test_light_modules_do_not_import_tensorflow():
    modules = (
        "cxrkeras, cxrkeras.cli, cxrkeras.config, cxrkeras.data.readers, cxrkeras.phantoms.writing, "
        "cxrkeras.models.registry, cxrkeras.scoring.run_list, cxrkeras.scoring.packs"
    )
    code = f"import sys, {modules}; assert not {{'tensorflow', 'keras'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, cxrkeras.cli; assert not {'pandas', 'sklearn', 'matplotlib', 'numpy.f2py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # `--help` answers at once


@pytest.mark.slow
def test_help_predict_and_app_need_nothing_that_windows_lacks():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp', 'termios')))\n"
        "import cxrkeras.cli, cxrkeras.app.server, cxrkeras.predict.predictor, cxrkeras.models.torch_reader\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(cxrkeras.cli.app, ['--help']).exit_code == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
