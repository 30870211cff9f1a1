"""`trimodal tokenizer`: train the tokenizer of a modality.

trimodal tokenizer train text --data data/digits/train.jsonl --out data/digits
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, check_output
from trimodal.errors import StorageError

FILE = "text.model"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand `train text`."""
    example = (
        "example: trimodal tokenizer train text --data data/digits/train.jsonl --out data/digits"
    )
    parser.epilog = example
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    train = actions.add_parser(
        "train", help="train a tokenizer", description="Train a tokenizer.", epilog=example
    )
    modalities = train.add_subparsers(metavar="MODALITY", required=True)
    text = modalities.add_parser(
        "text",
        help="a SentencePiece model",
        description="Train a SentencePiece model on every text, question and answer of manifests.",
        epilog=example,
    )
    text.add_argument(
        "--data", metavar="MANIFEST", nargs="+", type=Path, required=True, help="what to train on"
    )
    text.add_argument(
        "--out",
        metavar="FILE_OR_DIR",
        type=Path,
        required=True,
        help=f"the model, if the name ends in .model, else the folder for {FILE}",
    )
    text.add_argument(
        "--vocab-size",
        metavar="N",
        type=int,
        default=8000,
        help="most pieces; a small corpus gives fewer (default: %(default)s)",
    )
    text.set_defaults(action=_train_text)


def _train_text(options: argparse.Namespace) -> int:
    from trimodal.data import read_manifests
    from trimodal.processors.text import train_tokenizer

    path = options.out if options.out.suffix == ".model" else options.out / FILE
    check_output(path, options.data)
    rows = read_manifests(options.data)
    texts = (
        text for row in rows for text in (*row.texts.values(), row.question, row.answer) if text
    )
    try:
        pieces = train_tokenizer(texts, path, options.vocab_size)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    print(f"{path}: {pieces} pieces")
    return 0


def run(options: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return options.action(options)


COMMAND = Command("tokenizer", "train the tokenizer of a modality", configure, run)
