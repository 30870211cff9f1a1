"""`trimodal finetune MODEL --data MANIFEST --out DIR`."""

import argparse
import sys
from pathlib import Path

from trimodal.cli import Command, make_output
from trimodal.errors import PathError

EXAMPLE = r"""example:
  trimodal finetune runs/demo/model --data data/digits/train.jsonl --out runs/classifier \
    --inputs image --lora 8
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of fine-tuning."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("model", metavar="MODEL", help="folder of a model")
    parser.add_argument("--data", required=True, metavar="MANIFEST", help="rows with labels")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the model is written")
    parser.add_argument(
        "--inputs",
        nargs="+",
        choices=["image", "text", "speech"],
        default=["image", "speech"],
        help="what is classified (default: image speech)",
    )
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="default: %(default)s")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train low-rank adapters only")
    parser.add_argument("--freeze", action="store_true", help="train the head only")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    """Fine-tune and save."""
    out = Path(options.out)
    if make_output(out):
        raise PathError(f"--out {out} is not empty")
    from trimodal.finetune import finetune

    model = finetune(
        options.model,
        options.data,
        inputs=options.inputs,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lora=options.lora,
        freeze=options.freeze,
        seed=options.seed,
        progress=True,
    )
    model.save_pretrained(out)
    print(f"model with {len(model.class_labels)} classes written to {out}", file=sys.stderr)
    return 0


COMMAND = Command("finetune", "Train a classification head on a model.", configure, run)
