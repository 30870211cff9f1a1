"""Whether a trained model writes the same text with its cache and without, together and alone.

python benchmarks/decoding.py runs/scenes/model data/scenes/test.jsonl --rows 200

Texts are written greedily from pictures or utterances, in fp32. An uncached forward then reads each
whole text, as in training, and says which piece it finds likeliest at each place; where the two
best of its logits lie further apart than `CLOSE`, it has to be the one that was written.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

import trimodal
from trimodal.assembly import Writing, assemble
from trimodal.batch import Modality, Sample
from trimodal.data import read_manifest
from trimodal.errors import DataError, TrimodalError
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Generation, Request, generate
from trimodal.vocabulary import Special
from trimodal_kernels import Scores

CLOSE = 1e-4
TOGETHER = 64
GREEDY = Decoding(temperature=0.0)


def conditions(model: TrimodalModel, manifest: str, source: str, rows: int) -> list[Sample]:
    """The media of the first rows that have one of this kind."""
    assert model.processor is not None  # noqa: S101 - `load` reads it
    media = [getattr(row, source) for row in read_manifest(manifest)]
    media = [medium for medium in media if medium is not None][:rows]
    if not media:
        raise DataError(f"{manifest}: no row has {source}")
    return model.processor(**{source: media})


def places(
    model: TrimodalModel, samples: Sequence[Sample], made: Sequence[Generation]
) -> list[list[tuple[bool, float]]]:
    """Of each text for each place: whether an uncached forward agrees, and its two best's gap."""
    writings = [
        [Writing(one.target, frozenset(s.media))] for s, one in zip(samples, made, strict=True)
    ]
    batch = assemble(samples, written=writings, summaries=model.architecture.summaries)
    known = model.known_ids(Modality.TEXT)
    with torch.inference_mode():
        scores = model(**batch.inputs()).predictions["causal_text"]
        assert isinstance(scores, Scores)  # noqa: S101 - that is what a text has
        logits = scores.logits()[:, :known].split([len(one.target.ids) + 1 for one in made])
    found = []
    for rows, one in zip(logits, made, strict=True):
        pieces = [*(one.target.ids - int(Special.END_TEXT)).tolist(), 0]
        if len(one.target.ids) == GREEDY.max_tokens:
            pieces, rows = pieces[:-1], rows[:-1]
        best = rows.topk(2, dim=-1)
        gaps = (best.values[:, 0] - best.values[:, 1]).tolist()
        found.append(
            [
                (a == b, gap)
                for a, b, gap in zip(best.indices[:, 0].tolist(), pieces, gaps, strict=True)
            ]
        )
    return found


def compare(model: TrimodalModel, samples: Sequence[Sample], lang: str) -> bool:
    """Print what was compared; whether all is as it has to be."""
    request, seeds = Request(to=Modality.TEXT, lang=lang), [0] * TOGETHER
    total, close, wrong, apart, wrong_apart = 0, 0, 0, 0, 0
    for at in range(0, len(samples), TOGETHER):
        chosen = samples[at : at + TOGETHER]
        made = generate(model, chosen, request, GREEDY, seeds[: len(chosen)])
        read = places(model, chosen, made)
        total += sum(map(len, read))
        close += sum(gap <= CLOSE for text in read for _, gap in text)
        wrong += sum(not agrees and gap > CLOSE for text in read for agrees, gap in text)
        for sample, together, text in zip(chosen, made, read, strict=True):
            (alone,) = generate(model, [sample], request, GREEDY, seeds[:1])
            if not torch.equal(alone.target.ids, together.target.ids):
                apart += 1
                wrong_apart += min(gap for _, gap in text) > CLOSE
    print(f"{len(samples)} texts in {lang}, {total} places, {close} of them within {CLOSE:g}")
    print(f"cached and uncached differ beyond that: {wrong} places")
    print(f"together and alone differ: {apart} texts, {wrong_apart} of them with no such place")
    return not wrong and not wrong_apart


def main(arguments: Sequence[str] | None = None) -> int:
    """The status is 1 if a text is another one without a reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model folder")
    parser.add_argument("manifest")
    parser.add_argument("--source", choices=("image", "speech"), default="image")
    parser.add_argument("--rows", type=int, default=200, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        model = trimodal.load(options.model)
        samples = conditions(model, options.manifest, options.source, options.rows)
        good = [compare(model, samples, lang) for lang in ("en", "zh")]
    except TrimodalError as error:
        print(f"decoding: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
