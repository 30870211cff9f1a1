from typing import Any

import torch

from trimodal.assembly import assemble
from trimodal.batch import Modality
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close


def test_embeddings_have_unit_norm_and_a_summary_each(
    model: TrimodalModel, media: dict[str, Any]
) -> None:
    assert model.processor is not None
    batch = assemble(model.processor(**media), summaries=True)
    for modality in Modality:
        encoder, packed = model.encoder(modality), batch.media[modality]
        x_TD = encoder(packed)
        assert x_TD.shape == (packed.tokens.num_tokens, 32)
        z_NE = encoder.embed(x_TD, packed.tokens)
        assert_close(z_NE.norm(dim=1), torch.ones(packed.num_media), "unit-norm")
        summary_ND = encoder.summarise(z_NE)
        assert encoder.summary is not None
        assert summary_ND.shape == (packed.num_media, 32)
        assert_close(summary_ND, 4 * encoder.summary(z_NE), "fp32")


def test_the_trunk_sees_the_summary(model: TrimodalModel, media: dict[str, Any]) -> None:
    """What is read off a view changes with the summaries alone."""
    assert model.processor is not None
    samples = [s for s in model.processor(**media) if len(s.media) == 3]
    batch = assemble(samples, fused=[frozenset(Modality)] * len(samples), summaries=True)
    with torch.no_grad():
        before = model(**batch.inputs()).z_NSE
        for modality in Modality:
            summary = model.encoder(modality).summary
            assert summary is not None
            summary.weight.add_(0.5)
        after = model(**batch.inputs()).z_NSE
    assert before is not None
    assert after is not None
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-4)
