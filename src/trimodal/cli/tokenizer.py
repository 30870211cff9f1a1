"""`trimodal tokenizer`: train the tokenizer of a modality, or measure one.

trimodal tokenizer train text --data data/digits/train.jsonl --out data/digits
"""

import argparse
import json
from pathlib import Path

from trimodal.cli import Command, check_output
from trimodal.storage import refusal

FILE = "text.model"
TOKENIZERS = "runs/demo/tokenizers"
LEARNT = {
    "vision": (
        "a convolutional autoencoder of pictures with a finite code",
        "Train a vision tokenizer: pictures to codes and back.",
        "vision_tokenizer",
    ),
    "speech": (
        "a convolutional autoencoder of log-mel frames with a finite code",
        "Train a speech tokenizer: log-mel frames to codes and back.",
        "speech_tokenizer",
    ),
    "vocoder": (
        "log-mel frames to sound",
        "Train a vocoder: log-mel frames, as a speech tokenizer gives them, to a waveform.",
        "vocoder",
    ),
}
"""By what is trained: help, description, and the folder that a model looks for it in."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `train` and `eval`."""
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
        "--data", metavar="MANIFEST", nargs="+", required=True, help="what to train on"
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
    text.add_argument(
        "--within-words",
        action="store_true",
        help="no piece crosses the end of a Chinese word, as none crosses a space; "
        "for corpora of few phrases, which would else become pieces whole",
    )
    text.set_defaults(action=_train_text)
    for what in LEARNT:
        _configure_learnt(modalities, what)
    _configure_eval(actions)


def _configure_learnt(
    modalities: "argparse._SubParsersAction[argparse.ArgumentParser]", what: str
) -> None:
    brief, description, folder = LEARNT[what]
    learnt = modalities.add_parser(
        what,
        help=brief,
        description=f"{description} The same command again goes on where it was interrupted.",
        epilog=_learnt_example(what),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    learnt.add_argument(
        "--data", metavar="MANIFEST", nargs="+", required=True, help="what to train on"
    )
    learnt.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help=f"the result; called {folder}, it is found among the tokenizers of a model",
    )
    learnt.add_argument("--config", metavar="FILE.yaml", type=Path, help="else the defaults")
    if what == "vocoder":
        learnt.add_argument(
            "--tokenizer", metavar="DIR", help="the speech tokenizer whose frames it will be given"
        )
    learnt.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. training.max_steps=100"
    )
    learnt.set_defaults(action=_train_learnt, what=what)


def _learnt_example(what: str) -> str:
    tokenizer = f" \\\n    --tokenizer {TOKENIZERS}/speech_tokenizer" if what == "vocoder" else ""
    return (
        f"example:\n  trimodal tokenizer train {what} --data data/digits/train.jsonl \\\n"
        f"    --config configs/tokenizers/digits_{what}.yaml \\\n"
        f"    --out {TOKENIZERS}/{LEARNT[what][2]}{tokenizer}"
    )


def _configure_eval(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    measure = actions.add_parser(
        "eval",
        help="measure a learnt tokenizer or vocoder",
        description="Measure how well media survive being codes, and how many codes are used. "
        "With judges, also how often they are right about the files (judged_originals) and about "
        "what was made of their codes (judged), as fractions, and the difference (kept).",
        epilog=f"example: trimodal tokenizer eval {TOKENIZERS}/vision_tokenizer "
        "--data data/digits/test.jsonl",
    )
    measure.add_argument("folder", metavar="DIR", type=Path, help="what training wrote")
    measure.add_argument(
        "--data", metavar="MANIFEST", nargs="+", required=True, help="what to measure on"
    )
    measure.add_argument(
        "--tokenizer", metavar="DIR", type=Path, help="the speech tokenizer of a vocoder"
    )
    measure.add_argument(
        "--judges",
        metavar="DIR",
        type=Path,
        help="judges of what is recognised afterwards, see `trimodal judge train`",
    )
    measure.set_defaults(action=_eval)


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
        pieces = train_tokenizer(texts, path, options.vocab_size, within_words=options.within_words)
    except OSError as error:
        raise refusal(f"{path} cannot be written: {error.strerror}", error) from error
    print(f"{path}: {pieces} pieces")
    return 0


def _train_learnt(options: argparse.Namespace) -> int:
    from trimodal.training.tokenizers.config import load_training

    overrides = list(options.overrides)
    if (tokenizer := getattr(options, "tokenizer", None)) is not None:
        overrides.append(f"tokenizer={json.dumps(tokenizer)}")
    config = load_training(options.what, options.config, overrides)
    check_output(options.out, options.data)
    from trimodal.training.tokenizers.trainer import train

    trained = train(config, options.data, options.out)
    print(f"{options.out}: " + ("written" if trained else "is finished, nothing is left to do"))
    return 0


def _eval(options: argparse.Namespace) -> int:
    from trimodal.training.tokenizers.measurement import measure

    results = measure(options.folder, options.data, options.tokenizer, options.judges)
    print("  ".join(f"{key} {value:.4g}" for key, value in results.items()))
    if options.judges is not None:
        from trimodal.evaluation.judges import fingerprint, read_judges_config

        if read_judges_config(options.judges).manifest in map(fingerprint, options.data):
            print("(among these are the rows that the judges were trained on)")
    return 0


def run(options: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return options.action(options)


COMMAND = Command("tokenizer", "train or measure the tokenizer of a modality", configure, run)
