"""A page about a run that needs nothing but itself: what it was, learnt, finds and makes.

write_report(Path("runs/demo"))
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import yaml

import trimodal
from trimodal.data import Row, read_manifest
from trimodal.errors import ConfigError
from trimodal.evaluation.embedding import PAIRS, SINGLES, embed_rows, load_model, processor_of
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.examples import MOST_SECONDS, find_examples
from trimodal.evaluation.gallery import make_examples, nine
from trimodal.evaluation.generation_grid import answers, grid, table
from trimodal.evaluation.judges import JudgesConfig, read_judges_config
from trimodal.evaluation.run import Run, Series, read_metrics, read_results, read_run
from trimodal.evaluation.subgroups import dependence
from trimodal.schema import to_dict
from trimodal.storage import are_same, check_writable, write_json, write_whole

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel

OPENED = ("text->image", "speech->image")
"""Directions whose found examples are unfolded at first."""
OPENED_MADE = ("image->text", "text->image", "image->speech")
"""Directions whose made examples are unfolded at first."""
SEED = 0
"""Of what is made, as in `trimodal eval` unless it is told another."""
LOSSES = (
    *("loss", "contrastive", "masked", "quantised", "target", "causal", "length", "matching"),
)
OPTIMISATION = ("learning_rate", "grad_norm", "logit_scale", "logit_bias")
CODEBOOKS = ("usage", "perplexity")
"""What is shown of the training of tokenizers."""
SPEED = (
    *("tokens_per_second", "samples_per_second", "mfu", "seconds", "memory"),
    *("padding", "imbalance"),
)
LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}
MOST_CONFUSION_LABELS = 20
MOST_MISTAKES = 12


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    name: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class Confusion:
    """What one classifier takes for what."""

    title: str
    labels: list[str]
    cells: list[tuple[str, list[tuple[int, float]]]]
    """By true label: counts, and their share of its samples; empty if there are many labels."""
    pairs: list[tuple[str, str, int]]
    """If there are many labels: the commonest mistakes."""


def write_report(
    run_dir: str | Path,
    data: str | Path | None = None,
    *,
    judges: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Write `report.html` into a finished run, and `results.json` if it is not there yet.

    Args:
        run_dir: holds `config.yaml`, `metrics.jsonl` and `model`.
        data: the manifest to show; else the run's test data, else its validation data.
        judges: a folder of judges of generated pictures and speech, if results are computed or
            those that are there were not judged by such.
        progress: say on stderr how far it is.

    Returns:
        The page's path.

    Raises:
        StorageError: the run is not finished, a file of it is damaged or cannot be written, or
            there are no judges.
        ConfigError: no manifest is named, or the packages that draw are not installed.
        DataError: the manifest or a medium cannot be used.
    """
    drawing = _drawing_modules()
    run = read_run(Path(run_dir))
    page = run.folder / "report.html"
    check_writable(page)
    manifest = run.manifest(data)
    rows = read_manifest(manifest)
    model = load_model(run.folder / "model")
    results = _results(run, model, manifest, judges, progress)
    seed = int(results.get("generation", {}).get("seed", SEED))
    vectors = embed_rows(
        model,
        rows,
        variants=True,
        token_budget=run.config.training.token_budget,
        progress=progress,
    )
    ways = make_examples(
        model,
        rows,
        seed=seed,
        token_budget=run.config.training.token_budget,
        progress=progress,
    )
    context = {
        **_summary(run, model, results, rows),
        "kinds": find_examples(processor_of(model), rows, vectors),
        "seed": seed,
        "ways": ways,
        "nine": nine(ways),
        "projection": drawing["projection"].project(rows, vectors),
        "parts": _parts(results.get("generation"), drawing["figures"].shares),
        "curves": _curves({**run.series, **_codebooks(run.folder)}, drawing["figures"].curve),
    }
    write_whole(page, render(context).encode())
    return page


def _drawing_modules() -> dict[str, Any]:
    try:
        return {
            name: importlib.import_module(f"trimodal.evaluation.{name}")
            for name in ("figures", "projection")
        }
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a report needs {error.name}, which is not installed: pip install 'trimodal[train]'"
        ) from error


def _results(
    run: Run,
    model: "TrimodalModel",
    manifest: str,
    judges: str | Path | None,
    progress: bool,
) -> dict[str, Any]:
    """The run's results; computed if they are missing, of another manifest or of other judges."""
    path = run.folder / "results.json"
    wanted = None if judges is None else read_judges_config(Path(judges))
    results = read_results(path)
    wanted = wanted if model.config.generates else None
    same = results is not None and _are_of(results, manifest)
    if results and same and _are_judged_by(results, wanted):
        return results
    fresh = evaluate(
        model,
        manifest,
        judges=judges,
        by=(results or {}).get("generation", {}).get("by", ()) if same else (),
        seed=SEED,
        token_budget=run.config.training.token_budget,
        progress=progress,
    )
    if results is None:
        write_json(path, fresh)
    return fresh


def _are_of(results: Mapping[str, Any], manifest: str) -> bool:
    return are_same(results["manifest"], manifest)


def _are_judged_by(results: Mapping[str, Any], judges: JudgesConfig | None) -> bool:
    """Whether these judges, or some of the same training data, have judged; true of no judges."""
    if judges is None:
        return True
    judged = results.get("generation", {}).get("judges") or {}
    return judged.get("trained_on") == judges.manifest


def render(context: Mapping[str, Any]) -> str:
    """The page; everything in `context` that is not `Markup` is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "arrow": _arrow,
        "clipped": _clipped,
        "gain": _gain,
    }
    sections = [
        ("results", "At a glance", True),
        ("examples", "What it finds", context["kinds"]),
        ("makes", "What it makes", context["ways"] or context["made"]),
        ("map", "Map", context["projection"]),
        ("scores", "Scores", True),
        ("confusions", "What it confuses", context["confusions"]),
        ("training", "Training", context["curves"]),
        ("configuration", "Configuration", True),
    ]
    return environment.get_template("report.html.j2").render(
        **context,
        sections=[(anchor, title) for anchor, title, there in sections if there],
        opened=OPENED,
        opened_made=OPENED_MADE,
        languages=LANGUAGE_NAMES,
        most_seconds=MOST_SECONDS,
        tags={"image": "circle", "text": "rect", "speech": "path"},
        version=trimodal.__version__,
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _gain(value: float) -> str:
    # adding 0 takes the sign from a negative zero
    return f"{round(100 * value, 1) + 0:+.1f}".replace("-", "\N{MINUS SIGN}")


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ").replace("+", " + ")


def _clipped(text: str, most: int = 90) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _summary(
    run: Run, model: "TrimodalModel", results: Mapping[str, Any], rows: Sequence[Row]
) -> dict[str, Any]:
    decisions = dict(results["zero_shot"])
    head = results.get("classification")
    if head and head["samples"]:
        decisions["classification head"] = head
    return {
        "made": _made(results.get("generation")),
        "name": run.folder.resolve().name,
        "folder": str(run.folder),
        "results": {"classification": None, "retrieval_by_label": {}, **results},
        "grouped": any(row.group is not None for row in rows),
        "label_differs": any(
            results["retrieval"].get(direction) != found
            for direction, found in results.get("retrieval_by_label", {}).items()
        ),
        "tiles": _tiles(run, sum(p.numel() for p in model.parameters())),
        "finds": _finds(results["retrieval"]),
        "names": _names(results["zero_shot"]),
        "decisions": list(decisions.items()),
        "matryoshka": _matryoshka(results["matryoshka"]),
        "confusions": [
            _confusion(title, found["confusion"])
            for title, found in decisions.items()
            if "confusion" in found
        ],
        "config": yaml.safe_dump(to_dict(run.config), sort_keys=False, allow_unicode=True),
    }


def _tiles(run: Run, parameters: int) -> list[Tile]:
    tiles = [Tile("parameters", *_scaled(parameters)), Tile("training steps", f"{run.steps:,}")]
    seconds, speed, mfu = run.total("seconds"), run.typical("tokens_per_second"), run.typical("mfu")
    if seconds is not None:
        long = seconds >= 3600
        tiles.append(
            Tile("training time", f"{seconds / (3600 if long else 60):.1f}", "h" if long else "min")
        )
    if speed is not None:
        value, scale = _scaled(speed)
        tiles.append(Tile("speed", value, f"{scale} tokens/s".strip()))
    if mfu is not None:
        tiles.append(Tile("model FLOP use", _percent(mfu), "% of peak"))
    return tiles


def _scaled(number: float) -> tuple[str, str]:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}", unit
    return f"{number:.3g}", ""


def _finds(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[float | None]]]:
    """R@1 by query and gallery, the queries that found anything only."""
    table = []
    for query in (*SINGLES, *PAIRS):
        found = [scores.get(f"{query}->{gallery}") for gallery in SINGLES]
        if any(found):
            table.append((query, [scored["R@1"] if scored else None for scored in found]))
    return table


def _names(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Zero-shot accuracy by modality and language."""
    languages = sorted({direction.split("[")[1].rstrip("]") for direction in scores})
    table = []
    for name in ("image", "speech"):
        found = [scores.get(f"{name}->text[{lang}]") for lang in languages]
        if any(found):
            table.append((name, [scored["accuracy"] if scored else None for scored in found]))
    return {"languages": languages, "rows": table}


def _made(generation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of `measure_generation`; None if nothing was generated."""
    if not generation or not generation["directions"]:
        return None
    directions, judges = generation["directions"], generation["judges"] or {}
    cells = grid(directions)
    return {
        "grid": cells,
        "answers": answers(directions),
        "averaged": any(cell and cell.languages > 1 for _, row in cells for cell in row),
        "table": table(directions),
        "judges": [
            (name, judges[name]["accuracy"], judges[name]["samples"])
            for name in SINGLES
            if "accuracy" in judges.get(name, {})
        ],
        "judged": bool(judges),
    }


def _parts(generation: Mapping[str, Any] | None, shares: Any) -> list[tuple[str, str, Any]]:
    """Direction, key and figure, where results are told apart by a number."""
    keys = (generation or {}).get("by", [])
    if not generation or not keys:
        return []
    found = {
        name: dependence(keys, direction["by"])
        for name, direction in generation["directions"].items()
        if "by" in direction
    }
    return [(name, keys[0], shares(name, keys[0], lines)) for name, lines in found.items() if lines]


def _matryoshka(by_dim: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[float]]]:
    titles = [
        (kind, direction, what)
        for kind, what in (("retrieval", "R@1"), ("zero_shot", "accuracy"))
        for direction in next(iter(by_dim.values()), {}).get(kind, ())
    ]
    return [
        (f"{direction} {what}", [at[kind][direction] for at in by_dim.values()])
        for kind, direction, what in titles
    ]


def _confusion(title: str, tree: Mapping[str, Any]) -> Confusion:
    labels, matrix = list(tree["labels"]), np.array(tree["matrix"])
    if len(labels) <= MOST_CONFUSION_LABELS:
        share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
        cells = [
            (label, list(zip(matrix[i].tolist(), share[i].tolist(), strict=True)))
            for i, label in enumerate(labels)
        ]
        return Confusion(title, labels, cells, [])
    mistakes = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_MISTAKES]
    pairs = [
        (labels[i], labels[j], int(mistakes[i, j]))
        for i, j in zip(*np.unravel_index(order, mistakes.shape), strict=True)
        if mistakes[i, j]
    ]
    return Confusion(title, labels, [], pairs)


def _curves(series: Mapping[str, Series], curve: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every logged number as a figure, under a few headings."""
    groups: dict[str, list[dict[str, Any]]] = {"Losses": [], "Optimisation": [], "Speed": []}
    for name, one in series.items():
        drawn = {"name": name, "last": one.values[-1], "svg": curve(one)}
        groups.setdefault(_heading(name), []).append(drawn)
    return [(title, drawn) for title, drawn in groups.items() if drawn]


def _codebooks(folder: Path) -> dict[str, Series]:
    """How much the codes were used while the run's tokenizers were trained."""
    found: dict[str, Series] = {}
    for path in sorted(folder.glob("tokenizers/*/metrics.jsonl")):
        series, kind = read_metrics(path), path.parent.name.replace("_tokenizer", "")
        for key in CODEBOOKS:
            if key in series:
                name = f"tokenizers/{kind} {key}"
                found[name] = replace(series[key], name=name)
    return found


def _heading(name: str) -> str:
    if name.startswith(OPTIMISATION):
        return "Optimisation"
    if "/" in name:
        return name.split("/")[0].capitalize()
    if name.startswith(LOSSES) or name.endswith("_loss"):
        return "Losses"
    return "Speed" if name.startswith(SPEED) else "Other"
