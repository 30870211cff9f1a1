"""`trimodal data`: build a corpus that needs no download, check, tokenize or import a manifest.

trimodal data build digits data/digits
"""

import argparse
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from trimodal.cli import MOST_WORKERS, Command, add_workers, check_output, corpus, workers_of

if TYPE_CHECKING:
    from trimodal.data.corpus import Recipe

EXIT_PROBLEMS = 65


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    example = "example: trimodal data build digits data/digits"
    parser.epilog = example
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="write a synthetic corpus",
        description="Write a corpus that needs no download: manifests, pictures and speech.",
        epilog=example,
    )
    corpora = build.add_subparsers(metavar="CORPUS", required=True)
    digits = _add_corpus(
        corpora, "digits", "handwritten digits with their names, written and spoken"
    )
    _configure_digits(digits)
    scenes = _add_corpus(
        corpora, "scenes", "rendered scenes with captions, spoken too, and questions"
    )
    _configure_scenes(scenes)
    check = actions.add_parser(
        "check",
        help="decode everything in manifests and list what is wrong",
        description="Read every row, decode every picture and utterance, and list each problem "
        "as FILE:LINE: cause. Exits with 65 if there is any. A key that is no key of a manifest is "
        "none, but told with the number of its rows.",
        epilog="example: trimodal data check corpus/train.jsonl corpus/val.jsonl",
    )
    check.add_argument("manifests", metavar="MANIFEST", nargs="+", help="what to check")
    check.set_defaults(action=_check)
    _configure_tokenize(actions)
    corpus.configure(actions)


def _configure_tokenize(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    tokenize = actions.add_parser(
        "tokenize",
        help="write the codes of pictures and speech into manifests",
        description="Write the training manifests of a configuration anew, with the codes that its "
        "tokenizers give for pictures and speech, so that training does not compute them.",
        epilog="example: trimodal data tokenize configs/demo.yaml --out data/digits_codes",
    )
    tokenize.add_argument("config", metavar="CONFIG", type=Path, help="a run's configuration")
    tokenize.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. data.tokenizers=runs/x/tokenizers"
    )
    tokenize.add_argument(
        "--out", metavar="DIR", required=True, help="the folder of the new manifests"
    )
    add_workers(tokenize)
    tokenize.set_defaults(action=_tokenize)


def _add_corpus(
    corpora: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    return corpora.add_parser(
        name,
        help=what,
        description=f"Write {what}, in English and Chinese.",
        epilog=f"example: trimodal data build {name} data/{name} --seed 1",
    )


def _configure_digits(parser: argparse.ArgumentParser) -> None:
    _configure_build(parser)
    parser.add_argument(
        "--speakers",
        metavar="N",
        type=int,
        default=48,
        help="synthetic speakers of train; val has 8 others and test 12 (default: %(default)s)",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="use at most N scans of each split")
    parser.set_defaults(action=_build_digits)


def _configure_scenes(parser: argparse.ArgumentParser) -> None:
    _configure_build(parser)
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int,
        default=4000,
        help="rows of train; val and test have a tenth each (default: %(default)s)",
    )
    parser.add_argument(
        "--spoken",
        metavar="SHARE",
        type=float,
        default=1.0,
        help="share of the rows of train with speech (default: %(default)s)",
    )
    parser.set_defaults(action=_build_scenes)


def _configure_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a former build")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="what is drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=min(os.cpu_count() or 1, MOST_WORKERS),
        help="processes; the files do not depend on it (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds other files"
    )


def _build_digits(options: argparse.Namespace) -> int:
    from trimodal.data.digits import Digits

    recipe = Digits(seed=options.seed, speakers=options.speakers, limit=options.limit)
    return _build(recipe, options)


def _build_scenes(options: argparse.Namespace) -> int:
    from trimodal.data.scenes import Scenes

    recipe = Scenes(seed=options.seed, samples=options.samples, spoken=options.spoken)
    return _build(recipe, options)


def _build(recipe: "Recipe", options: argparse.Namespace) -> int:
    from trimodal.data.corpus import build

    sizes = build(recipe, options.out, overwrite=options.overwrite, workers=options.workers)
    print(f"{options.out}: " + ", ".join(f"{count} {split} rows" for split, count in sizes.items()))
    return 0


def _check(options: argparse.Namespace) -> int:
    import torch

    from trimodal.data.check import take_census

    torch.set_num_threads(1)  # on operations this small, threads mostly wait for each other
    found = 0
    for path in options.manifests:
        census = take_census(path)
        found += (count := len(census.problems))
        for problem in census.problems:
            print(problem)
        print(f"{path}: {count} problem{'' if count == 1 else 's'}")
        for warning in census.warnings():
            print(f"{path}: warning: {warning}")
        if census.rows:
            print(census.summary())
    return EXIT_PROBLEMS if found else 0


def _tokenize(options: argparse.Namespace) -> int:
    from functools import partial

    import torch

    from trimodal.config import load_config
    from trimodal.data.tokenized import tokenize_manifest
    from trimodal.errors import ConfigError
    from trimodal.progress import Progress
    from trimodal.storage import under
    from trimodal.training.building import build_processor

    torch.set_num_threads(1)  # as in `_check`
    config = load_config(options.config, options.overrides)
    names = [f"{PurePath(path).name.removesuffix('.jsonl')}.jsonl" for path in config.data.train]
    if len(set(names)) < len(names):
        raise ConfigError("data.train: manifests of one name would be written over each other")
    make, workers = partial(build_processor, config), workers_of(options)
    for path, name in zip(config.data.train, names, strict=True):
        out = under(options.out, name)
        check_output(out, [path])
        with Progress(None, "tokenized", shown=True) as bar:
            count = tokenize_manifest(path, out, make, workers, bar.advance)
        print(f"{out}: {count} rows")
    return 0


def run(options: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return options.action(options)


COMMAND = Command("data", "build a corpus; check, tokenize or import a manifest", configure, run)
