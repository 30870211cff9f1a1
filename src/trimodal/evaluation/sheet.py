"""A page of tables and figures that needs nothing but itself.

write_sheet(Path("compare.html"), Sheet("Two runs", tables=[...], chapters=[...]))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from trimodal.storage import write_whole


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each names it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chapter:
    """Figures that belong together, each with its name."""

    title: str
    figures: Sequence[tuple[str, Markup]]


@dataclass(frozen=True)
class Sheet:
    """What a page shows, in this order."""

    title: str
    tables: Sequence[Table] = ()
    chapters: Sequence[Chapter] = ()
    lines: Sequence[str] = ()
    """What the lines of its figures stand for, in the order of their colours."""


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Write a page.

    Raises:
        StorageError: it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    folder = files("trimodal.evaluation")
    template = (folder / "sheet.html.j2").read_text(encoding="utf-8")
    css = Markup((folder / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - ours
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    text = page.render(
        title=sheet.title, tables=sheet.tables, chapters=sheet.chapters, lines=sheet.lines, css=css
    )
    write_whole(path, text.encode(errors="backslashreplace"))
