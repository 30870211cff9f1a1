"""What the trunk predicts of hidden tokens, targets, texts and lengths: counts and summed losses.

sums = predicted(output.predictions, output.matching, batch, vocabulary, config.objectives)
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from trimodal.batch import Batch, Prediction
from trimodal.config import CausalConfig, ObjectivesConfig, TargetConfig
from trimodal.objectives.losses import gaussian_nll, masked_ids, masked_values
from trimodal.vocabulary import Vocabulary
from trimodal_kernels import Scores

LOSSES = {
    "masked": ("masked_vision", "masked_text", "masked_speech", "quantised_speech"),
    "target": ("target_vision", "target_speech"),
    "causal": ("causal_text",),
    "length": ("length_speech",),
    "matching": ("matching_tuples",),
}
"""The losses of each objective, which is the mean over those of them that occur."""
NAMES = tuple(name for names in LOSSES.values() for name in names)


def weights(config: ObjectivesConfig) -> dict[str, float]:
    """The weight of each objective of `LOSSES`, 0 where it is off."""
    chosen = (config.masked, config.target, config.causal, config.length, config.matching)
    return {
        name: objective.weight if objective else 0.0
        for name, objective in zip(LOSSES, chosen, strict=True)
    }


def predicted_counts(batches: Sequence[Batch]) -> list[int]:
    """Predicted tokens, or tuples, of each of `NAMES`."""
    counts = dict.fromkeys(NAMES, 0)
    for batch in batches:
        for name, prediction in (batch.views.predictions if batch.views else {}).items():
            counts[name] += prediction.token_K.numel()
        if batch.matching is not None:
            counts["matching_tuples"] += batch.matching.sample_V.numel()
    return list(counts.values())


def predicted(
    predictions: Mapping[str, Tensor | Scores],
    matching: tuple[Tensor, Tensor] | None,
    batch: Batch,
    vocabulary: Vocabulary,
    config: ObjectivesConfig,
) -> dict[str, Tensor]:
    """The losses that occur, each summed over its tokens or tuples.

    Args:
        predictions: by name of the loss, see `TrimodalOutput`.
        matching: logits and labels of tuples.
        batch: what was asked.
        vocabulary: where each range of ids begins.
        config: the smoothing of labels.
    """
    asked = batch.views.predictions if batch.views else {}
    sums = {
        name: _summed(name, predictions[name], prediction, vocabulary, config)
        for name, prediction in asked.items()
    }
    if matching is not None:
        sums["matching_tuples"] = masked_ids(*matching)
    return sums


def _summed(
    name: str,
    answer: Tensor | Scores,
    prediction: Prediction,
    vocabulary: Vocabulary,
    config: ObjectivesConfig,
) -> Tensor:
    target, kind = prediction.target, name.partition("_")[0]
    if isinstance(answer, Scores):
        ids, smoothing = vocabulary.range_of(prediction.modality), 0.0
        if kind == "causal":
            ids = vocabulary.continuations
            smoothing = (config.causal or CausalConfig()).label_smoothing
        elif kind == "target":
            smoothing = (config.target or TargetConfig()).label_smoothing
        # of the codes of a token, the mean
        return answer.cross_entropy(target - ids.start, smoothing) / target.shape[1:].numel()
    if kind == "length":
        return gaussian_nll(answer, target)
    if kind == "quantised":
        return masked_ids(answer, target)
    return masked_values(answer, target)
