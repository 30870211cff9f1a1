"""What a corpus consists of, as a page of plots.

write_page(Path("stats.html"), "corpus/train.jsonl", measure(rows))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from trimodal.data.statistics import Statistics
from trimodal.errors import ConfigError
from trimodal.evaluation.sheet import Chapter, Sheet, Table, write_sheet

MOST_ROWS = 50
"""Of a table; a corpus may have thousands of speakers and labels."""


def write_page(path: Path, title: str, found: Statistics) -> None:
    """Write the page.

    Raises:
        StorageError: it cannot be written.
        ConfigError: there is nothing to draw with.
    """
    try:
        from trimodal.evaluation.figures import histogram
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"plots need {error.name}, which is not installed: pip install 'trimodal[train]'"
        ) from error
    values: list[tuple[str, str, Sequence[float], str]] = [
        *_by_language("Speech", "an utterance", found.seconds, "seconds"),
        *_by_language("Texts", "a text", found.characters, "characters"),
        *_by_language("Texts", "a text", found.tokens, "pieces"),
    ]
    if found.sizes:
        heights, widths = zip(*found.sizes, strict=True)
        values += [
            ("Pictures", "height", heights, "pixels"),
            ("Pictures", "width", widths, "pixels"),
        ]
    if found.speakers:
        minutes = [seconds / 60 for seconds in found.speakers.values()]
        values.append(("Speech", "a speaker", minutes, "minutes"))
    chapters: dict[str, list[tuple[str, Markup]]] = {}
    for chapter, name, numbers, unit in values:
        figure = histogram(f"{chapter} {name} {unit}", numbers, unit)
        chapters.setdefault(chapter, []).append((f"{name}, {unit}", figure))
    tables = [
        Table("Rows", ["", "rows"], _counted({"all": found.rows, **found.modalities})),
        Table("Hours", ["language", "hours"], _hours(found.seconds)),
        Table("Labels", ["label", "rows"], _counted(dict(found.labels.most_common()))),
    ]
    shown = [table for table in tables if table.rows]
    named = [Chapter(name, figures) for name, figures in chapters.items()]
    write_sheet(path, Sheet(title, tables=shown, chapters=named))


def _by_language(
    chapter: str, name: str, values: Mapping[str, Sequence[float]], unit: str
) -> list[tuple[str, str, Sequence[float], str]]:
    return [(chapter, f"{name}, {lang}", each, unit) for lang, each in sorted(values.items())]


def _counted(counts: Mapping[str, int]) -> list[list[str]]:
    rows = [[name, str(count)] for name, count in counts.items()]
    more = len(rows) - MOST_ROWS
    return rows if more <= 0 else [*rows[:MOST_ROWS], [f"and {more} more", ""]]


def _hours(seconds: Mapping[str, Sequence[float]]) -> list[list[str]]:
    return [[lang, f"{sum(each) / 3600:.2f}"] for lang, each in sorted(seconds.items())]
