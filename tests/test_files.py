"""Locks, encodings and the Keras backend."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

import cxrkeras
from cxrkeras.errors import InputError
from cxrkeras.files import NO_LOCKS, locked, write_text

PACKAGE = Path(cxrkeras.__file__).parent


def test_a_lock_is_held_once_and_its_file_is_kept(tmp_path):
    lock = tmp_path / ".x.lock"
    with locked(lock, "taken"):
        with pytest.raises(InputError, match="taken"), locked(lock, "taken"):
            pass
        inode = lock.stat().st_ino
    assert lock.stat().st_ino == inode  # all processes wait for the same file
    with locked(lock, "taken"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_an_error_that_names_the_workaround(tmp_path, monkeypatch, number):
    def refuse(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with pytest.raises(InputError, match=f"without locks.*{NO_LOCKS}=1"), locked(tmp_path / ".x.lock", "taken"):
        pass
    monkeypatch.setenv(NO_LOCKS, "1")
    with locked(tmp_path / ".x.lock", "taken"):
        pass


def is_text_call(node):
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("read_text", "write_text"):
        return isinstance(node.func, ast.Attribute)
    owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
    if name != "open" or owner in ("Image", "tarfile", "os", "urllib"):
        return False
    # The mode may be a conditional expression.
    modes = [child.value for argument in node.args for child in ast.walk(argument) if isinstance(child, ast.Constant)]
    return not any("b" in str(mode) for mode in modes)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_text_file_is_opened_with_an_encoding(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if is_text_call(node):
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            named = [keyword.arg for keyword in node.keywords]
            assert "encoding" in named or {"utf-8", "utf-8-sig"} & set(map(str, words)), f"{path}:{node.lineno}"


def test_text_is_utf_8_in_the_c_locale(tmp_path):
    code = "import sys; from pathlib import Path; from cxrkeras.files import write_text; "
    code += "write_text(Path(sys.argv[1]), 'Zo\\xeb')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], check=True, env=environment)
    assert (tmp_path / "a.txt").read_bytes() == "Zo\xeb".encode()
    write_text(tmp_path / "b.txt", "Zo\xeb")
    assert (tmp_path / "b.txt").read_bytes() == (tmp_path / "a.txt").read_bytes()


@pytest.mark.parametrize("where", ["environment", "file"])
def test_an_unsupported_backend_is_named_with_its_setting(tmp_path, where):
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    if where == "environment":
        environment["KERAS_BACKEND"] = "jax"
    else:
        (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    code = "from cxrkeras.tensorflow_import import import_tensorflow; import_tensorflow()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode
    assert "KERAS_BACKEND or keras.json, and cxrkeras needs tensorflow" in done.stderr.splitlines()[-1]
