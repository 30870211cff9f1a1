"""tests/ mirrors the source roots: a module of any size has a test file of its own."""

import ast
import io
import tokenize
from pathlib import Path

LINES = 40
MIRRORS = {
    "src/trimodal": "tests/trimodal",
    "kernels/trimodal_kernels": "tests/kernels",
    "serving/trimodal_serving": "tests/serving",
}
NOT_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def _code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE and token.string.strip():
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def _test_of(module: str) -> str:
    source = next(source for source in MIRRORS if module.startswith(f"{source}/"))
    inside = Path(module).relative_to(source)
    return (Path(MIRRORS[source]) / inside.parent / f"test_{inside.name}").as_posix()


def test_every_module_has_its_test(root: Path, source_files: list[Path]) -> None:
    missing = []
    for path in source_files:
        module = path.relative_to(root).as_posix()
        if _code_lines(path) > LINES and not (root / _test_of(module)).is_file():
            missing.append(f"{module} needs {_test_of(module)}")
    assert not missing, "\n".join(missing)
