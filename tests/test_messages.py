"""Messages of the library: they name settings and commands, and leave the Makefile's options to the Makefile."""

import ast
import re
from pathlib import Path

import pytest

import cxrkeras

PACKAGE = Path(cxrkeras.__file__).parent
MAKEFILE = PACKAGE.parent / "Makefile"
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli"]


def find_make_options():
    takes = re.findall(r"^takes\.[a-z-]+ = (.*)$", MAKEFILE.read_text("utf-8"), re.MULTILINE)
    return sorted({name for line in takes for name in line.split()})


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_below_the_commands_names_an_option_of_make(path):
    options = find_make_options()
    assert "RECORDS" in options
    pattern = re.compile(rf"\b(?:{'|'.join(options)})=|`make |\bmake [a-z]+ [A-Z]+=")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not pattern.search(node.value), f"{path}:{node.lineno}: {node.value!r}"
