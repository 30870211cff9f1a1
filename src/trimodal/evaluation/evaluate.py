"""Everything that a model is measured by on one manifest.

print(format_table(evaluate(trimodal.load("runs/demo/model"), "data/digits/test.jsonl")))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from trimodal.batch import Modality
from trimodal.data import Row, read_manifest
from trimodal.errors import ConfigError
from trimodal.evaluation.classification import classification_scores
from trimodal.evaluation.directions import generate_directions
from trimodal.evaluation.embedding import (
    PAIRS,
    SINGLES,
    TOKEN_BUDGET,
    Embedder,
    embed_rows,
    languages_of,
    only,
    present,
    processor_of,
    sample_chunks,
)
from trimodal.evaluation.generation import measure_generation
from trimodal.evaluation.geometry import alignment, gap, uniformity
from trimodal.evaluation.judges import load_judges
from trimodal.evaluation.resynthesis import resynthesis
from trimodal.evaluation.retrieval import number_keys, score
from trimodal.evaluation.subgroups import check_keys
from trimodal.evaluation.zero_shot import PromptVectors, embed_prompts, find_prompts, zero_shot
from trimodal.models import cut

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel

DIRECTIONS = tuple(f"{a}->{b}" for a in SINGLES for b in SINGLES if a != b)
FUSED_DIRECTIONS = tuple(f"{pair}->{third}" for pair, third in PAIRS.items())
Vectors = Mapping[str, np.ndarray]


def evaluate(
    model: Embedder,
    manifest: str | Path,
    *,
    prompts: str | Path | None = None,
    dimensions: Sequence[int] | None = None,
    judges: str | Path | None = None,
    generation: bool = True,
    by: Sequence[str] = (),
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> dict[str, Any]:
    """Retrieval, zero-shot classification, geometry and generation of a model on a manifest.

    A row that lacks a modality is absent from the directions that need it; the counts say so.

    Args:
        model: as `trimodal.load` returns it.
        manifest: the file to measure on.
        prompts: class prompts, see `find_prompts`.
        dimensions: lengths to which the vectors are also cut; all that the model allows if None.
        judges: a folder of judges of generated pictures and speech; see `trimodal judge`.
        generation: also measure what the model was trained to generate, and its tokenizers.
        by: keys of the rows by whose values generation is also scored, such as `speaker`.
        seed: of its draws.
        token_budget: tokens computed at once.
        progress: say on stderr how far it is.

    Returns:
        A tree that JSON can hold; docs/evaluation.md describes it.

    Raises:
        DataError: a row, a medium or a file of prompts cannot be used.
        ConfigError: the model cannot be cut to one of `dimensions`, or `by` parts no rows.
        NumericError: the model gives numbers that are not finite.
    """
    rows = read_manifest(manifest)
    check_dimensions(model, dimensions)
    generates = generation and bool(model.config.generates)
    if by and not generates:
        raise ConfigError("by: tells generation apart, and nothing is generated")
    check_keys(rows, by, str(manifest))
    known = None if judges is None else load_judges(judges)
    prompted = embed_prompts(model, find_prompts(prompts, manifest, rows), token_budget)
    vectors = embed_rows(model, rows, variants=True, token_budget=token_budget, progress=progress)
    results = measure(rows, vectors, prompted, dimensions or model.architecture.dimensions)
    if model.class_labels:
        results["classification"] = classification(model, rows, token_budget)
    if generates:
        trained, speech = cast("TrimodalModel", model), processor_of(model).speech
        made = generate_directions(
            trained, rows, seed=seed, token_budget=token_budget, progress=progress
        )
        results["generation"] = measure_generation(
            list(made), rows, known, by=by, seed=seed, speech=speech
        )
        if (codes := processor_of(model).codes) is not None:
            results["resynthesis"] = resynthesis(codes.tokenizers, rows)
    return {"manifest": str(manifest), **results}


def check_dimensions(model: Embedder, dimensions: Sequence[int] | None) -> None:
    """Refuse a length that was not trained.

    Raises:
        ConfigError: see above.
    """
    allowed = model.architecture.dimensions
    for dim in dimensions or ():
        if dim not in allowed:
            raise ConfigError(
                f"dimensions: {dim} is not one that this model was trained for: "
                f"{', '.join(map(str, allowed))}"
            )


def measure(
    rows: Sequence[Row], vectors: Vectors, prompted: PromptVectors, dimensions: Sequence[int]
) -> dict[str, Any]:
    """What `evaluate` returns, from vectors that `embed_rows` made with `variants`."""
    by_language = [
        direction
        for lang in languages_of(rows)
        for other in ("image", "speech")
        for direction in (f"{other}->text[{lang}]", f"text[{lang}]->{other}")
    ]
    every = (*DIRECTIONS, *by_language, *FUSED_DIRECTIONS)
    return {
        "rows": len(rows),
        "samples": {name: int(present(z_NE).sum()) for name, z_NE in vectors.items()},
        "retrieval": retrieval(rows, vectors, every, "group"),
        "retrieval_by_label": retrieval(rows, vectors, (*DIRECTIONS, *FUSED_DIRECTIONS), "label"),
        "prompts": prompted.prompts.source,
        "zero_shot": zero_shot_directions(rows, vectors, prompted),
        "matryoshka": {str(dim): _at_dimension(rows, vectors, prompted, dim) for dim in dimensions},
        "geometry": shape_of(vectors),
    }


def retrieval(
    rows: Sequence[Row],
    vectors: Vectors,
    directions: Sequence[str],
    positives: Literal["group", "label"],
) -> dict[str, dict[str, float | int]]:
    """`score` of each direction `QUERY->GALLERY` that the manifest has; names are of `vectors`.

    With positives "label", only rows that have a label take part.
    """
    takes_part_N = np.array([positives == "group" or row.label is not None for row in rows])
    (key_N,) = number_keys([row.key(positives) for row in rows])
    scores = {}
    for direction in directions:
        query, gallery = direction.split("->")
        if query not in vectors or gallery not in vectors:
            continue
        query_N, gallery_N = (takes_part_N & present(vectors[name]) for name in (query, gallery))
        if not gallery_N.any():
            continue
        found = score(
            vectors[query][query_N], vectors[gallery][gallery_N], key_N[query_N], key_N[gallery_N]
        )
        if found is not None:
            scores[direction] = found
    return scores


def zero_shot_directions(
    rows: Sequence[Row], vectors: Vectors, prompted: PromptVectors
) -> dict[str, dict[str, Any]]:
    """`zero_shot` of pictures and of speech with the prompts of each language."""
    labels = [row.label for row in rows]
    scores = {
        f"{name}->text[{lang}]": zero_shot(vectors[name], labels, prompted, lang)
        for name in ("image", "speech")
        for lang in prompted.prompts.languages
    }
    return {direction: found for direction, found in scores.items() if found is not None}


def _at_dimension(
    rows: Sequence[Row], vectors: Vectors, prompted: PromptVectors, dim: int
) -> dict[str, dict[str, float]]:
    """R@1 and zero-shot accuracy with vectors cut to a length (Kusupati et al., 2022)."""
    short = {name: cut(vectors[name], dim) for name in SINGLES}
    found = retrieval(rows, short, DIRECTIONS, "group")
    decided = zero_shot_directions(rows, short, prompted)
    return {
        "retrieval": {direction: float(scores["R@1"]) for direction, scores in found.items()},
        "zero_shot": {direction: scores["accuracy"] for direction, scores in decided.items()},
    }


def shape_of(vectors: Vectors) -> dict[str, dict[str, float]]:
    """Each measure by modality or by pair of modalities; pairs are of one row."""
    has = {name: present(vectors[name]) for name in SINGLES}
    pairs = [
        (a, b)
        for a, b in (("image", "text"), ("image", "speech"), ("text", "speech"))
        if has[a].any() and has[b].any()
    ]
    alignments = {}
    for a, b in pairs:
        both_N = has[a] & has[b]
        if both_N.any():
            alignments[f"{a}-{b}"] = alignment(vectors[a][both_N], vectors[b][both_N])
    return {
        "alignment": alignments,
        "uniformity": {
            name: uniformity(vectors[name][has_N]) for name, has_N in has.items() if has_N.sum() > 1
        },
        "modality_gap": {f"{a}-{b}": gap(vectors[a][has[a]], vectors[b][has[b]]) for a, b in pairs},
    }


def classification(model: Embedder, rows: Sequence[Row], token_budget: int) -> dict[str, Any]:
    """How well the classification head does on rows whose label it knows.

    Returns:
        `inputs`, what the head was trained on; `classification_scores` of rows with any of them;
        `alone`, by input, the accuracy on rows with it from it alone, if there are several inputs;
        `unknown_label` and `no_input`, the labelled rows that take no part.
    """
    labelled = [row for row in rows if row.label is not None]
    known = [row for row in labelled if row.label in model.class_labels]
    inputs = list(model.config.class_inputs)
    scores = _decided(model, known, inputs, token_budget)
    able = scores["samples"]
    left_out = {"unknown_label": len(labelled) - len(known), "no_input": len(known) - able}
    alone = {}
    for name in inputs if len(inputs) > 1 else ():
        found = _decided(model, known, [name], token_budget)
        if found["samples"]:
            alone[name] = {key: found[key] for key in ("accuracy", "macro_f1", "samples")}
    return {"inputs": inputs, **scores, "alone": alone, **left_out}


def _decided(
    model: Embedder, rows: Sequence[Row], inputs: Sequence[str], token_budget: int
) -> dict[str, Any]:
    """`classification_scores` of the rows that have any of the inputs, from these alone."""
    able = [row for row in rows if set(inputs) & set(row.data_names)]
    if not able:
        return {"samples": 0}
    modalities = {Modality.of(name) for name in inputs}
    decided = [
        model.classify_samples([only(sample, modalities) for sample in samples], token_budget)
        for samples in sample_chunks(processor_of(model), able, token_budget)
    ]
    classes = model.class_labels
    label_N = np.array([classes.index(row.label) for row in able if row.label is not None])
    return classification_scores(np.concatenate(decided).argmax(axis=1), label_N, classes)
