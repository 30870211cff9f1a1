"""`trimodal data manifest`, `split`, `stats`, `import` and `verify`: from a corpus to its shards.

trimodal data manifest librispeech LibriSpeech/train-clean-100 corpus/all.jsonl
trimodal data import corpus/train.jsonl shards/train
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from trimodal.cli import add_workers, positive, workers_of

LAYOUTS = ("aishell", "coco", "imagefolder", "librispeech", "ljspeech")
"""Those of `trimodal.data.layouts`, which is not imported before it is needed."""
EXIT_PROBLEMS = 65
Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def configure(actions: Actions) -> None:
    """Add the subcommands."""
    _configure_manifest(actions)
    _configure_split(actions)
    _configure_stats(actions)
    _configure_import(actions)
    verify = _add(
        actions,
        _verify,
        "compare shards with their hashes",
        "Read every shard of imported folders and name what is not as it was written. "
        "Exits with 65 if there is any.",
        "verify shards/train",
    )
    verify.add_argument("folders", metavar="FOLDER", nargs="+", help="of an import")


def _add(
    actions: Actions,
    action: Callable[[argparse.Namespace], int],
    brief: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """A subcommand, whose name is the first word of its example."""
    parser = actions.add_parser(
        example.split()[0],
        help=brief,
        description=description,
        epilog=f"example: trimodal data {example}",
    )
    parser.set_defaults(action=action)
    return parser


def _configure_manifest(actions: Actions) -> None:
    manifest = _add(
        actions,
        _manifest,
        "write the manifest of a published corpus",
        "Write a manifest for a corpus that is laid out as it is published: "
        + ", ".join(LAYOUTS)
        + ". Nothing is copied; the paths lead to where it lies.",
        "manifest coco coco/annotations/captions_val2017.json corpus/val.jsonl",
    )
    manifest.add_argument("layout", metavar="LAYOUT", choices=LAYOUTS, help=", ".join(LAYOUTS))
    manifest.add_argument(
        "source", metavar="SOURCE", type=Path, help="its folder; of coco, the file of captions"
    )
    manifest.add_argument("out", metavar="OUT", type=Path, help="the manifest")


def _configure_split(actions: Actions) -> None:
    split = _add(
        actions,
        _split,
        "cut a manifest into train, val and test",
        "Write train.jsonl, val.jsonl and test.jsonl, none of which has a speaker or a file of "
        "another.",
        "split corpus/all.jsonl corpus --val 0.05 --test 0.05",
    )
    split.add_argument("manifest", metavar="MANIFEST", help="the rows")
    split.add_argument("out", metavar="OUT", help="the folder of the new manifests")
    for name in ("val", "test"):
        split.add_argument(
            f"--{name}", metavar="SHARE", type=float, default=0.05, help="of the rows (%(default)s)"
        )
    split.add_argument(
        "--apart",
        metavar="KEY",
        nargs="*",
        default=["speaker"],
        help="speaker, group or label: whose values lie in one split (speaker)",
    )
    split.add_argument("--seed", metavar="N", type=int, default=0, help="(%(default)s)")


def _configure_stats(actions: Actions) -> None:
    stats = _add(
        actions,
        _stats,
        "hours, sizes, lengths and counts, with plots",
        "Read the headers of all media of manifests, and say what there is: hours by language and "
        "speaker, sizes of pictures, lengths of texts.",
        "stats corpus/train.jsonl --html stats.html",
    )
    stats.add_argument("manifests", metavar="MANIFEST", nargs="+", help="read as one")
    stats.add_argument("--tokenizer", metavar="FILE", help="a SentencePiece model, to count pieces")
    stats.add_argument("--json", metavar="FILE", help="write the numbers")
    stats.add_argument("--html", metavar="FILE", type=Path, help="write a page with plots")


def _configure_import(actions: Actions) -> None:
    into = _add(
        actions,
        _import,
        "write a corpus as tar shards",
        "Write a manifest and its media, or a dataset of Hugging Face's library, as tar shards of "
        "the webdataset convention, with an index that training reads like a manifest: name the "
        "folder in data.train. The same command goes on where an interrupted one stopped.",
        "import corpus/train.jsonl shards/train --workers 4",
    )
    into.add_argument(
        "source",
        metavar="SOURCE",
        help="a manifest; or a folder of save_to_disk, a file of Parquet or Arrow, a folder of "
        "Parquet",
    )
    into.add_argument("out", metavar="OUT", help="a new folder, or its address")
    into.add_argument(
        "--columns",
        metavar="KEY=COLUMN",
        nargs="+",
        default=[],
        type=_column,
        help="of a dataset: keys of a manifest whose columns have other names, e.g. image=img",
    )
    for name, default in (("rows", 10_000), ("megabytes", 512)):
        into.add_argument(
            f"--{name}",
            metavar="N",
            type=positive,
            default=default,
            help="most of a shard (%(default)s)",
        )
    add_workers(into, processes=True)


def _column(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not key or not equals or not column:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=COLUMN")
    return key, column


def _manifest(options: argparse.Namespace) -> int:
    from trimodal.data import layouts
    from trimodal.progress import Progress

    left = layouts.Left()
    rows = layouts.LAYOUTS[options.layout](options.source, left)
    with Progress(None, "listed", shown=True) as bar:
        count = layouts.write_manifest(bar.counted(rows), options.out)
    print(f"{options.out}: {count} rows")
    if left.total():
        print("left out: " + ", ".join(f"{count} {what}" for what, count in left.items() if count))
    return 0


def _split(options: argparse.Namespace) -> int:
    from trimodal.data.splitting import split_manifest

    shares = {name: share for name in ("val", "test") if (share := getattr(options, name))}
    sizes = split_manifest(
        options.manifest, options.out, shares, tuple(options.apart), options.seed
    )
    print(f"{options.out}: " + ", ".join(f"{count} {name} rows" for name, count in sizes.items()))
    return 0


def _stats(options: argparse.Namespace) -> int:
    from trimodal.data import read_manifests
    from trimodal.data.statistics import measure
    from trimodal.progress import Progress
    from trimodal.storage import check_writable, write_json

    for out in (options.json, options.html):
        if out is not None:
            check_writable(out)
    rows = read_manifests(options.manifests)
    with Progress(len(rows), "measured", shown=True) as bar:
        found = measure(rows, options.tokenizer, bar.advance)
    print(found.summary())
    if options.json is not None:
        write_json(options.json, found.tree())
    if options.html is not None:
        from trimodal.evaluation.corpus_page import write_page

        write_page(options.html, " and ".join(options.manifests), found)
    return 0


def _import(options: argparse.Namespace) -> int:
    from trimodal.data.shards import Cuts, Listed, import_corpus
    from trimodal.data.tables import Table, is_table
    from trimodal.errors import ConfigError
    from trimodal.progress import Progress

    cuts, workers = Cuts(options.rows, options.megabytes), workers_of(options)
    table = None
    if is_table(options.source):
        table = Table(options.source, dict(options.columns))
    elif options.columns:
        raise ConfigError(f"--columns: {options.source} is no dataset, and a manifest has keys")
    rows = table or Listed(options.source)
    with Progress(rows.count, "imported", shown=True) as bar:
        done = import_corpus(rows, options.out, cuts, workers, bar.advance)
    size = sum(shard.size for shard in done.shards)
    print(f"{options.out}: {done.rows} rows in {len(done.shards)} shards, {size / 1e6:.1f} MB")
    if table is not None and table.left_out:
        print(f"not imported, for JSON cannot hold them: {', '.join(table.left_out)}")
    if done.duplicates:
        told = f"{done.duplicates} rows have the media and texts of one before them"
        print(f"{told}, see {options.out}/duplicates.jsonl")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from trimodal.data.shards import read_summary
    from trimodal.data.verify import verify
    from trimodal.progress import Progress

    found = 0
    for folder in options.folders:
        summary = read_summary(folder)
        with Progress(summary.rows, "verified", shown=True) as bar:
            problems = list(verify(folder, bar.advance))
        found += len(problems)
        print(*problems, sep="\n", end="\n" if problems else "")
        count = len(problems)
        print(
            f"{folder}: {count} problem{'' if count == 1 else 's'}, {summary.rows} rows in "
            f"{len(summary.shards)} shards"
        )
    return EXIT_PROBLEMS if found else 0
