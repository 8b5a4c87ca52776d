"""`python -m tests.same_code OLD [NEW]`: exit with 0 if revisions differ only in docstrings and comments.

Compares the syntax trees of all Python files without docstrings. NEW is the working tree by default.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path


def code_of(source: str) -> str:
    """Dump the syntax tree of a module without docstrings; equal code gives equal text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]
    return ast.dump(tree)


def files_of(revision: str | None) -> dict[str, str]:
    """The source of every Python file at a revision (None: in the working tree), by path."""
    listing = ["ls-tree", "-r", "--name-only", revision] if revision else ["ls-files"]
    paths = [path for path in _git(*listing).splitlines() if path.endswith(".py")]
    if revision is None:
        return {
            path: Path(path).read_text(encoding="utf-8") for path in paths if Path(path).exists()
        }
    return {path: _git("show", f"{revision}:{path}") for path in paths}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, encoding="utf-8").stdout


def main(old: str, new: str | None = None) -> int:
    before, after = files_of(old), files_of(new)
    changed = sorted(
        path
        for path in before.keys() | after.keys()
        if path not in before
        or path not in after
        or (before[path] != after[path] and code_of(before[path]) != code_of(after[path]))
    )
    print("\n".join(changed) or "no code has changed")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
