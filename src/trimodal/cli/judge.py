"""`trimodal judge`: the classifiers that judge generated pictures and speech.

trimodal judge train --data data/digits/train.jsonl --out runs/judges
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, check_output, make_output, positive


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `train` and `test`."""
    example = "example: trimodal judge train --data data/digits/train.jsonl --out runs/judges"
    parser.epilog = example
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    train = actions.add_parser(
        "train",
        help="train judges",
        description="Train a classifier of pictures and one of speech on the labels of a manifest.",
        epilog=example,
    )
    train.add_argument("--data", metavar="MANIFEST", required=True, help="rows with labels")
    train.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="where the judges are written"
    )
    train.add_argument(
        "--steps",
        metavar="N",
        type=positive,
        default=200,
        help="of each judge, of 64 pictures or utterances each (default: %(default)s)",
    )
    train.add_argument(
        "--seed", metavar="N", type=int, default=0, help="what is drawn (default: %(default)s)"
    )
    train.set_defaults(action=_train)
    test = actions.add_parser(
        "test",
        help="how often judges are right",
        description="Print how often judges are right about the pictures and speech of a manifest.",
        epilog="example: trimodal judge test runs/judges --data data/digits/test.jsonl",
    )
    test.add_argument("judges", metavar="DIR", type=Path, help="what `judge train` wrote")
    test.add_argument("--data", metavar="MANIFEST", required=True, help="what to measure on")
    test.set_defaults(action=_test)


def _train(options: argparse.Namespace) -> int:
    check_output(options.out, (options.data,))

    import torch

    from trimodal.evaluation.judge_training import train_judges
    from trimodal.evaluation.judges import read_judges_config

    if make_output(options.out):
        read_judges_config(options.out)  # former judges are replaced, nothing else is
    torch.set_num_threads(1)  # on operations this small, threads mostly wait for each other
    judges = train_judges(options.data, steps=options.steps, seed=options.seed, progress=True)
    judges.save(options.out)
    inputs = " and ".join(judges.config.inputs)
    print(f"{options.out}: judges of {inputs} with {len(judges.labels)} labels")
    return 0


def _test(options: argparse.Namespace) -> int:
    import torch

    from trimodal.evaluation.judge_training import measure_judges
    from trimodal.evaluation.judges import fingerprint, load_judges

    torch.set_num_threads(1)
    judges = load_judges(options.judges)
    for name, scores in measure_judges(judges, options.data).items():
        print(
            f"{name}  accuracy {100 * scores['accuracy']:.1f}  "
            f"macro-F1 {100 * scores['macro_f1']:.1f}  of {scores['samples']} files"
        )
    if fingerprint(options.data) == judges.config.manifest:
        print("(these are the rows that the judges were trained on)")
    return 0


def run(options: argparse.Namespace) -> int:
    """Do what the chosen subcommand says."""
    return options.action(options)


COMMAND = Command("judge", "train and test the judges of generated media", configure, run)
