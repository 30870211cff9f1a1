from typing import Any

import numpy as np
import pytest

from trimodal.models import TrimodalModel, cut
from trimodal.testing import assert_close


def test_absent_media_are_nan_and_the_others_have_unit_norm(
    model: TrimodalModel, media: dict[str, Any]
) -> None:
    vectors = model.embed(**media)
    for name in ("image", "text", "speech"):
        absent = np.array([item is None for item in media[name]])
        assert np.isnan(vectors[name][absent]).all()
        assert_close(
            np.linalg.norm(vectors[name][~absent], axis=1), np.ones((~absent).sum()), "unit-norm"
        )
    assert_close(np.linalg.norm(vectors["fused"], axis=1), np.ones(9), "unit-norm")
    assert all(v.dtype == np.float32 and v.shape == (9, 16) for v in vectors.values())


def test_fused_of_one_modality_is_that_modality(
    model: TrimodalModel, media: dict[str, Any]
) -> None:
    vectors = model.embed(**media)
    for row, name in ((4, "image"), (5, "text"), (6, "speech")):
        assert_close(vectors["fused"][row], vectors[name][row], "exact")


def test_fused_of_several_is_none_of_them(model: TrimodalModel, media: dict[str, Any]) -> None:
    vectors = model.embed(**media)
    for name in ("image", "text", "speech"):
        assert not np.allclose(vectors["fused"][0], vectors[name][0], atol=1e-2)


@pytest.mark.parametrize("budget", [1, 40, 200, 100_000])
@pytest.mark.parametrize("order", ["same", "reversed", "shuffled"])
def test_packed_equals_alone(
    model: TrimodalModel, media: dict[str, Any], budget: int, order: str
) -> None:
    indices = np.arange(9)
    if order == "reversed":
        indices = indices[::-1]
    elif order == "shuffled":
        indices = np.random.default_rng(3).permutation(9)
    rows: list[dict[str, Any]] = [{k: [v[i]] for k, v in media.items()} for i in range(9)]
    alone = [model.embed(**row) for row in rows]
    shuffled: dict[str, Any] = {k: [v[i] for i in indices] for k, v in media.items()}
    together = model.embed(**shuffled, token_budget=budget)
    for name, vectors in together.items():
        expected = np.concatenate([alone[i][name] for i in indices])
        assert_close(vectors, expected, "packed-vs-alone-fp32")


def test_what_else_is_packed_does_not_leak(model: TrimodalModel, media: dict[str, Any]) -> None:
    before = model.embed(**media)["fused"]
    changed: dict[str, Any] = {k: list(v) for k, v in media.items()}
    changed["image"][0] = 255 - changed["image"][0]
    changed["speech"][7] = (np.ones(9000, np.float32), 16_000)
    after = model.embed(**changed)["fused"]
    assert_close(
        after[[1, 2, 3, 4, 5, 6, 8]], before[[1, 2, 3, 4, 5, 6, 8]], "packed-vs-alone-fp32"
    )
    assert not np.allclose(after[[0, 7]], before[[0, 7]], atol=1e-3)


def test_embedding_leaves_the_mode_of_the_model(model: TrimodalModel) -> None:
    model.train()
    model.embed(text=["seven"])
    assert model.training


def test_cut_is_a_unit_prefix() -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    prefix = cut(vectors, 4)
    assert_close(np.linalg.norm(prefix, axis=1), np.ones(5), "unit-norm")
    assert_close(prefix * np.linalg.norm(vectors[:, :4], axis=1)[:, None], vectors[:, :4], "fp32")
