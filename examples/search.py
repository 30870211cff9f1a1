"""Find the rows of a manifest that are nearest to a text.

python examples/search.py runs/demo/model data/digits/test.jsonl "a handwritten seven"
"""

import argparse

import numpy as np

import trimodal
from trimodal.data import read_manifest


def main() -> None:
    """Print the five best pictures and utterances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("manifest")
    parser.add_argument("text")
    options = parser.parse_args()
    model = trimodal.load(options.model)
    rows = read_manifest(options.manifest)
    gallery = model.embed(
        image=[row.image for row in rows],
        text=[next(iter(row.texts.values()), None) for row in rows],
        speech=[row.speech for row in rows],
    )
    query = model.embed(text=[options.text])["text"][0]
    for name in ("image", "speech"):
        similarity = np.nan_to_num(gallery[name] @ query, nan=-1.0)
        for i in similarity.argsort()[::-1][:5]:
            print(f"{name:6}  {similarity[i]:.3f}  {rows[i].id}")


if __name__ == "__main__":
    main()
