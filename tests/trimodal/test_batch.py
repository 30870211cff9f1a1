"""What crosses the boundaries: media, packed batches, and their way to a device."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from trimodal.batch import (
    Batch,
    MediaBatch,
    Medium,
    Modality,
    Prediction,
    Route,
    Sample,
    TokenBatch,
    Views,
    pack_media,
    to_device,
)
from trimodal_kernels import Segments


def _text(*ids: int) -> Medium:
    return Medium(Modality.TEXT, torch.tensor(ids), len(ids), (len(ids), 1))


def _picture(rows: int, columns: int) -> Medium:
    features = torch.randn(rows * columns, 12)
    return Medium(Modality.VISION, features, rows * columns, (rows, columns))


def test_modalities_have_two_names() -> None:
    assert [modality.data_name for modality in Modality] == ["image", "text", "speech"]
    assert [Modality.of(modality.data_name) for modality in Modality] == list(Modality)
    with pytest.raises(ValueError, match="not in tuple"):
        Modality.of("audio")


def test_patches_have_a_row_and_a_column() -> None:
    expected = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert _picture(2, 3).positions().tolist() == expected


def test_text_lies_on_the_diagonal() -> None:
    assert _text(5, 6, 7).positions().tolist() == [[0, 0], [1, 1], [2, 2]]


def test_a_sample_counts_its_tokens() -> None:
    media = {Modality.VISION: _picture(2, 3), Modality.TEXT: _text(9, 9)}
    assert Sample("a", media, group=1).num_tokens == 8


def test_packing_lays_media_end_to_end() -> None:
    media = [_picture(1, 2), _picture(2, 2), _picture(1, 1)]
    packed = pack_media(media)
    assert packed.num_media == 3
    assert packed.tokens.cu_seqlens.tolist() == [0, 2, 6, 7]
    assert packed.tokens.num_tokens == 7
    assert torch.equal(packed.features, torch.cat([medium.features for medium in media]))
    assert packed.tokens.segments.table_S5[:, 0].tolist() == [0, 2, 6]
    assert set(packed.tokens.modality_T.tolist()) == {Modality.VISION}
    assert set(packed.tokens.route_T.tolist()) == {Route.OBSERVED}
    for i, part in enumerate(packed.tokens.positions_T2.split([2, 4, 1])):
        assert part.tolist() == media[i].positions().tolist()
    assert not packed.hidden_T.any()


class _Packed(Dataset[MediaBatch]):
    """Pictures whose features are counted."""

    def __getitem__(self, index: int) -> MediaBatch:
        features = [torch.arange(12.0 * n).view(n, 12) for n in range(1, index + 3)]
        batch = pack_media([Medium(Modality.VISION, x, len(x), (1, len(x))) for x in features])
        assert batch.features.is_shared() == (get_worker_info() is not None)
        return batch


def test_packing_in_a_loader_process_gives_the_same() -> None:
    loader = DataLoader(_Packed(), sampler=range(3), batch_size=None, num_workers=1)
    for index, found in enumerate(loader):
        expected = _Packed()[index]
        assert torch.equal(found.features, expected.features)
        assert torch.equal(found.tokens.positions_T2, expected.tokens.positions_T2)


def test_packing_speech_keeps_more_frames_than_tokens() -> None:
    media = [Medium(Modality.SPEECH, torch.randn(4 * n, 5), n, (n, 1)) for n in (3, 1)]
    packed = pack_media(media)
    assert packed.features.shape == (16, 5)
    assert packed.tokens.num_tokens == 4


def test_hidden_tokens_are_marked_where_they_lie() -> None:
    packed = pack_media([_text(1, 2), _text(3, 4, 5)], {1: np.array([False, True, True])})
    assert packed.hidden_T.tolist() == [False, False, False, True, True]


def test_order_of_packing_is_order_of_results() -> None:
    media = [_text(*range(n)) for n in (3, 1, 2)]
    forward, backward = pack_media(media), pack_media(media[::-1])
    parts = torch.split(forward.features, [3, 1, 2])
    assert torch.equal(torch.cat(parts[::-1]), backward.features)


def test_tables_of_different_sizes_are_no_batch() -> None:
    with pytest.raises(ValueError, match=r"a batch of 3 positions has tables of \[2, 3\] tokens"):
        TokenBatch(
            positions_T2=torch.zeros(3, 2, dtype=torch.int64),
            modality_T=torch.zeros(3, dtype=torch.int64),
            route_T=torch.zeros(2, dtype=torch.int64),
            cu_seqlens=torch.tensor([0, 3]),
            segments=Segments.from_lengths([3]),
        )


def _batch() -> Batch:
    text: MediaBatch = pack_media([_text(1, 2), _text(3)])
    views = Views(
        source_T=torch.tensor([0, 1]),
        direct_T=torch.zeros(0, dtype=torch.int64),
        tokens=pack_media([_text(1, 2)]).tokens,
        fused_V=torch.tensor([0]),
        fused_sample_V=torch.tensor([0]),
        members_V3=torch.tensor([[False, True, False]]),
        predictions={
            "masked_text": Prediction(Modality.TEXT, torch.tensor([1]), torch.tensor([70]))
        },
    )
    sample_N = {Modality.TEXT: torch.tensor([0, 1])}
    return Batch(2, {Modality.TEXT: text}, sample_N, torch.tensor([5, 6]), views)


def test_a_batch_counts_encoder_and_trunk_tokens() -> None:
    batch = _batch()
    assert batch.num_tokens == 5
    assert Batch(2, batch.media, batch.sample_N, batch.group_N).num_tokens == 3


def test_inputs_are_the_arguments_of_forward() -> None:
    batch = _batch()
    assert batch.inputs() == {
        "num_samples": 2,
        "media": batch.media,
        "sample_N": batch.sample_N,
        "views": batch.views,
        "matching": batch.matching,
    }


def test_every_tensor_of_a_batch_moves() -> None:
    batch = _batch()
    moved = to_device(batch, "meta")
    assert moved.num_samples == 2
    assert moved.group_N.device.type == "meta"
    assert moved.views is not None
    prediction = moved.views.predictions["masked_text"]
    tensors = [
        moved.media[Modality.TEXT].features,
        moved.media[Modality.TEXT].hidden_T,
        moved.media[Modality.TEXT].tokens.positions_T2,
        *moved.media[Modality.TEXT].tokens.segments.plan("triton", 2).tables,
        moved.sample_N[Modality.TEXT],
        moved.views.members_V3,
        moved.views.direct_T,
        moved.views.tokens.cu_seqlens,
        prediction.token_K,
        prediction.target,
    ]
    assert all(tensor.is_meta for tensor in tensors)
    assert not batch.media[Modality.TEXT].features.is_meta
