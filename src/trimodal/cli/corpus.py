"""`trimodal data manifest`, `split`, `stats`, `import` and `verify`: from a corpus to its shards.

trimodal data manifest librispeech LibriSpeech/train-clean-100 corpus/all.jsonl
trimodal data import corpus/train.jsonl shards/train
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

LAYOUTS = ("aishell", "coco", "imagefolder", "librispeech", "ljspeech")
"""Those of `trimodal.data.layouts`, which is not imported before it is needed."""
EXIT_PROBLEMS = 65
MOST_WORKERS = 8


def configure(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands."""
    _configure_manifest(actions)
    _configure_split(actions)
    _configure_stats(actions)
    _configure_shards(actions)


def _configure_manifest(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    manifest = actions.add_parser(
        "manifest",
        help="write the manifest of a published corpus",
        description="Write a manifest for a corpus that is laid out as it is published: "
        + ", ".join(LAYOUTS)
        + ". Nothing is copied; the paths lead to where it lies.",
        epilog="example: trimodal data manifest coco coco/annotations/captions_val2017.json "
        "corpus/val.jsonl",
    )
    manifest.add_argument("layout", metavar="LAYOUT", choices=LAYOUTS, help=", ".join(LAYOUTS))
    manifest.add_argument(
        "source", metavar="SOURCE", type=Path, help="its folder; of coco, the file of captions"
    )
    manifest.add_argument("out", metavar="OUT", type=Path, help="the manifest")
    manifest.set_defaults(action=_manifest)


def _configure_split(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    split = actions.add_parser(
        "split",
        help="cut a manifest into train, val and test",
        description="Write train.jsonl, val.jsonl and test.jsonl, none of which has a speaker or a "
        "file of another.",
        epilog="example: trimodal data split corpus/all.jsonl corpus --val 0.05 --test 0.05",
    )
    split.add_argument("manifest", metavar="MANIFEST", type=Path, help="the rows")
    split.add_argument("out", metavar="OUT", type=Path, help="the folder of the new manifests")
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
    split.set_defaults(action=_split)


def _configure_stats(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stats = actions.add_parser(
        "stats",
        help="hours, sizes, lengths and counts, with plots",
        description="Read the headers of all media of manifests, and say what there is: hours by "
        "language and speaker, sizes of pictures, lengths of texts.",
        epilog="example: trimodal data stats corpus/train.jsonl --html stats.html",
    )
    stats.add_argument("manifests", metavar="MANIFEST", nargs="+", help="read as one")
    stats.add_argument(
        "--tokenizer", metavar="FILE", type=Path, help="a SentencePiece model, to count pieces"
    )
    stats.add_argument("--json", metavar="FILE", type=Path, help="write the numbers")
    stats.add_argument("--html", metavar="FILE", type=Path, help="write a page with plots")
    stats.set_defaults(action=_stats)


def _configure_shards(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    into = actions.add_parser(
        "import",
        help="write a manifest and its media as tar shards",
        description="Write a manifest and its media as tar shards of the webdataset convention, "
        "with an index that training reads like a manifest: name the folder in data.train. The "
        "same command goes on where an interrupted one stopped.",
        epilog="example: trimodal data import corpus/train.jsonl shards/train --workers 4",
    )
    into.add_argument("manifest", metavar="MANIFEST", type=Path, help="the rows")
    into.add_argument("out", metavar="OUT", type=Path, help="a new folder")
    into.add_argument(
        "--rows", metavar="N", type=int, default=10_000, help="most of a shard (%(default)s)"
    )
    into.add_argument(
        "--megabytes", metavar="N", type=int, default=512, help="most of a shard (%(default)s)"
    )
    into.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=min(os.cpu_count() or 1, MOST_WORKERS),
        help="processes; the files do not depend on it (%(default)s)",
    )
    into.set_defaults(action=_import)
    verify = actions.add_parser(
        "verify",
        help="compare shards with their hashes",
        description="Read every shard of imported folders and name what is not as it was written. "
        "Exits with 65 if there is any.",
        epilog="example: trimodal data verify shards/train",
    )
    verify.add_argument("folders", metavar="FOLDER", nargs="+", help="of an import")
    verify.set_defaults(action=_verify)


def _manifest(options: argparse.Namespace) -> int:
    from trimodal.data import layouts

    rows = layouts.LAYOUTS[options.layout](options.source)
    with _bar() as bar:
        count = layouts.write_manifest((row for row in rows if not bar.update()), options.out)
    print(f"{options.out}: {count} rows")
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

    rows = read_manifests(options.manifests)
    with _bar(len(rows)) as bar:
        found = measure(rows, options.tokenizer, bar.update)
    print(found.summary())
    if options.json is not None:
        from trimodal.evaluation.output import write_json

        write_json(options.json, found.tree())
    if options.html is not None:
        from trimodal.evaluation.corpus_page import write_page

        write_page(options.html, " and ".join(options.manifests), found)
    return 0


def _import(options: argparse.Namespace) -> int:
    from trimodal.data.shards import Cuts, import_manifest
    from trimodal.errors import ConfigError

    for name in ("rows", "megabytes", "workers"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    cuts = Cuts(options.rows, options.megabytes)
    with _bar() as bar:
        done = import_manifest(options.manifest, options.out, cuts, options.workers, bar.update)
    size = sum(shard.size for shard in done.shards)
    print(f"{options.out}: {done.rows} rows in {len(done.shards)} shards, {size / 1e6:.1f} MB")
    if done.duplicates:
        print(f"{done.duplicates} rows equal one before them, see {options.out}/duplicates.jsonl")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from trimodal.data.shards import read_summary
    from trimodal.data.verify import verify

    found = 0
    for folder in options.folders:
        summary = read_summary(folder)
        with _bar(summary.rows) as bar:
            problems = list(verify(folder, bar.update))
        found += len(problems)
        print(*problems, sep="\n", end="\n" if problems else "")
        count = len(problems)
        print(
            f"{folder}: {count} problem{'' if count == 1 else 's'}, {summary.rows} rows in "
            f"{len(summary.shards)} shards"
        )
    return EXIT_PROBLEMS if found else 0


def _bar(total: int | None = None) -> "tqdm[NoReturn]":
    from tqdm import tqdm

    return tqdm(total=total, unit="row", disable=not sys.stderr.isatty(), leave=False)
