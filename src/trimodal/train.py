"""What `accelerate launch` starts.

accelerate launch -m trimodal.train configs/demo.yaml training.max_steps=100
"""

import argparse
import sys
from collections.abc import Sequence

from trimodal.cli import guarded
from trimodal.config import load_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a YAML file and `key=value` overrides say."""
    parser = argparse.ArgumentParser(prog="python -m trimodal.train", description=__doc__)
    configure(parser)
    return run(parser.parse_args(arguments))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of training."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a run")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. training.max_steps=100"
    )


def run(options: argparse.Namespace) -> int:
    """Train; the same command again resumes."""

    def action() -> int:
        config = load_config(options.config, options.overrides)
        from trimodal.training.trainer import train

        train(config)
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
