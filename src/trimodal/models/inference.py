"""Embedding of samples by a model: packed to a token budget, the same alone or together.

vectors = embed_samples(model, samples, token_budget=16_384)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimodal.assembly import assemble, embedding_cost, whole
from trimodal.batch import Modality, Sample, to_device
from trimodal.packing import first_fit

if TYPE_CHECKING:
    from trimodal.models.trimodal import TrimodalModel

SLOTS = (*(modality.data_name for modality in Modality), "fused")


def embed_samples(
    model: "TrimodalModel", samples: Sequence[Sample], token_budget: int
) -> dict[str, np.ndarray]:
    """`image`, `text`, `speech` and `fused` vectors (N, E), NaN where absent."""
    dim = model.architecture.embedding_dim
    vectors = {slot: np.full((len(samples), dim), np.nan, dtype=np.float32) for slot in SLOTS}
    was_training = model.training
    if was_training:  # a walk over all modules, which a served text would feel
        model.eval()
    for indices in first_fit(list(map(embedding_cost, samples)), token_budget):
        chosen = [samples[i] for i in indices]
        fused = [whole(sample) for sample in chosen]
        batch = assemble(chosen, fused, summaries=model.architecture.summaries)
        if model.device.type != "cpu":  # where it is a walk for nothing
            batch = to_device(batch, model.device)
        with torch.inference_mode():
            output = model(**batch.inputs())
        assert output.z_NSE is not None  # noqa: S101 - forward always sets it
        z_NSE = output.z_NSE.float().cpu().numpy()
        for row, (i, sample) in enumerate(zip(indices, chosen, strict=True)):
            for modality in sample.media:
                vectors[modality.data_name][i] = z_NSE[row, modality]
            alone = len(sample.media) == 1
            vectors["fused"][i] = z_NSE[row, next(iter(sample.media)) if alone else len(Modality)]
    if was_training:
        model.train()
    return vectors
