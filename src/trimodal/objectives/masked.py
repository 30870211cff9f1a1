"""Masked prediction: how many hidden tokens there are, and the summed loss of each modality.

sums = masked(output.predictions, batch.views, vocabulary)
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from trimodal.batch import Batch, Modality
from trimodal.objectives.losses import masked_ids, masked_values
from trimodal.vocabulary import Vocabulary


def hidden_counts(batches: Sequence[Batch]) -> list[int]:
    """Hidden tokens of vision, text and speech."""
    return [
        sum(
            batch.views.predictions[modality].token_K.numel()
            for batch in batches
            if batch.views is not None and modality in batch.views.predictions
        )
        for modality in Modality
    ]


def masked(
    predictions: Mapping[str, Tensor], batch: Batch, vocabulary: Vocabulary
) -> dict[Modality, Tensor]:
    """The loss of each modality that has hidden tokens, summed over them."""
    sums: dict[Modality, Tensor] = {}
    for modality, prediction in (batch.views.predictions if batch.views else {}).items():
        predicted = predictions[modality.name.lower()]
        if modality is Modality.TEXT:
            sums[modality] = masked_ids(predicted, prediction.target - vocabulary.text.start)
        else:
            sums[modality] = masked_values(predicted, prediction.target)
    return sums
