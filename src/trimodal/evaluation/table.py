"""Results of `evaluate` as text for a terminal.

print(format_table(results))
"""

from collections.abc import Mapping, Sequence
from typing import Any

RETRIEVAL_COLUMNS = ("R@1", "R@5", "R@10", "mAP", "chance")


def format_table(results: Mapping[str, Any]) -> str:
    """Readable tables; scores in percent."""
    counts = ", ".join(f"{count} {name}" for name, count in results["samples"].items() if count)
    blocks = [f"{results['manifest']}: {results['rows']} rows ({counts})"]
    by_group, by_label = results["retrieval"], results["retrieval_by_label"]
    if by_group:
        blocks.append(_retrieval("retrieval by group", by_group))
    if any(by_group.get(direction) != found for direction, found in by_label.items()):
        blocks.append(_retrieval("retrieval by label", by_label))
    elif by_label:
        blocks.append("retrieval by label: the same")
    if results["zero_shot"]:
        blocks.append(_zero_shot(results["zero_shot"], results["prompts"]))
    if "classification" in results:
        blocks.append(_classification(results["classification"]))
    if len(results["matryoshka"]) > 1:
        blocks.append(_matryoshka(results["matryoshka"]))
    blocks.append(_geometry(results["geometry"]))
    return "\n\n".join(block for block in blocks if block)


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The first column flush left, the others flush right."""
    table = [header, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def percent(value: float | None) -> str:
    """In percent with one decimal; empty for None."""
    return "" if value is None else f"{100 * value:.1f}"


def _retrieval(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    header = [title, *RETRIEVAL_COLUMNS, "median rank", "queries", "unanswerable", "gallery"]
    lines = [
        [
            direction,
            *(percent(found[column]) for column in RETRIEVAL_COLUMNS),
            f"{found['median_rank']:g}",
            *(str(found[column]) for column in ("queries", "unanswerable", "gallery")),
        ]
        for direction, found in scores.items()
    ]
    return grid(header, lines)


def _zero_shot(scores: Mapping[str, Mapping[str, Any]], source: str) -> str:
    header = ["zero-shot", "accuracy", "bare", "macro-F1", "chance", "samples"]
    lines = [
        [
            direction,
            *(percent(found.get(key)) for key in ("accuracy", "bare", "macro_f1", "chance")),
            str(found["samples"]),
        ]
        for direction, found in scores.items()
    ]
    return f"{grid(header, lines)}\n(prompts: {source})"


def _classification(scores: Mapping[str, Any]) -> str:
    left_out = (
        f"(left out: {scores['unknown_label']} rows whose label the head does not know, "
        f"{scores['no_input']} with none of its inputs)"
    )
    lines = [(", ".join(scores["inputs"]), scores), *scores["alone"].items()]
    cells = [
        [
            f"from {name}",
            percent(found.get("accuracy")),
            percent(found.get("macro_f1")),
            str(found["samples"]),
        ]
        for name, found in lines
    ]
    return f"{grid(['classification head', 'accuracy', 'macro-F1', 'samples'], cells)}\n{left_out}"


def _matryoshka(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = []
    for kind, what in (("retrieval", "R@1"), ("zero_shot", "accuracy")):
        for direction in next(iter(scores.values()))[kind]:
            cells = [percent(at[kind][direction]) for at in scores.values()]
            lines.append([f"{direction} {what}", *cells])
    return grid(["embedding cut to", *scores], lines) if lines else ""


def _geometry(scores: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        [measure.replace("_", " "), ", ".join(f"{name} {value:.3f}" for name, value in of.items())]
        for measure, of in scores.items()
        if of
    ]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name.ljust(width)}  {values}" for name, values in lines)
