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
    with_docstring = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, with_docstring) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def files_of(revision: str | None) -> dict[str, str]:
    """Return the source of every Python file at a revision (None: in the working tree), by path."""
    listing = ["ls-tree", "-r", "--name-only", revision] if revision else ["ls-files"]
    paths = [path for path in _git(*listing).splitlines() if path.endswith(".py")]
    if revision:
        return {path: _git("show", f"{revision}:{path}") for path in paths}
    return {path: Path(path).read_text(encoding="utf-8") for path in paths if Path(path).exists()}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, encoding="utf-8").stdout


def is_same(old: str | None, new: str | None) -> bool:
    """Return True if two sources (None: no file) have the same code."""
    return old == new or (old is not None and new is not None and code_of(old) == code_of(new))


def main(old: str, new: str | None = None) -> int:
    before, after = files_of(old), files_of(new)
    paths = sorted(before.keys() | after.keys())
    changed = [path for path in paths if not is_same(before.get(path), after.get(path))]
    print("\n".join(changed) or "no code has changed")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
