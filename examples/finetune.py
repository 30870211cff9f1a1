"""Adapt a model to the labels of a manifest with LoRA, and classify the rows of another.

python examples/finetune.py runs/demo/model data/digits/train.jsonl data/digits/test.jsonl
"""

import argparse

import trimodal
from trimodal.evaluation import evaluate


def main() -> None:
    """Print the accuracy on the second manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    tuned = trimodal.finetune(options.model, options.train, epochs=options.epochs, lora=8)
    scores = evaluate(tuned, options.test)["classification"]
    print(f"{len(tuned.class_labels)} classes, accuracy {scores['accuracy']:.3f}")


if __name__ == "__main__":
    main()
