"""Names the test files with slow tests of the rooms that recent commits touch, one per line.

`python .ci/slow_tests.py [COMMIT]`: what has changed since COMMIT, by default since the last one that is older than
twelve hours. A test file belongs to the rooms that it imports, so that a change of `cxrkeras/scoring/` runs all slow
tests that import something of it.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def find_rooms(path: Path) -> set[str]:
    """Rooms and modules at the top of the package that a file imports."""
    tree = ast.parse(path.read_text("utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {module.split(".")[1] for module in modules if module.startswith("cxrkeras.")}


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else run("git", "rev-list", "-1", "--before=12 hours ago", "HEAD")
    if not base:
        base = run("git", "rev-list", "--max-parents=0", "HEAD").splitlines()[-1]
    changed = [Path(name) for name in run("git", "diff", "--name-only", base, "HEAD").splitlines()]
    rooms = {path.with_suffix("").parts[1] for path in changed if path.parts[0] == "cxrkeras" and len(path.parts) > 1}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        is_changed = path.relative_to(ROOT) in changed
        if "mark.slow" in path.read_text("utf-8") and (is_changed or find_rooms(path) & rooms):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
