import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.batch import Medium, Modality, pack_media
from trimodal.config import ModelConfig, VisionInputConfig
from trimodal.errors import ConfigError
from trimodal.models.stem import ConvolutionalStem
from trimodal.processors import VisionProcessor
from trimodal.testing import assert_close

SIZES = [(8, 8), (24, 40), (8, 32), (48, 8), (16, 16)]


def _stem(size: int = 8) -> ConvolutionalStem:
    torch.manual_seed(0)
    stem = ConvolutionalStem(size, 16)
    stem.init_weights()
    return stem


def _pictures() -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=draws, dtype=torch.uint8) for size in SIZES]


def _packed(stem: ConvolutionalStem, media: list[Medium]) -> Tensor:
    batch = pack_media(media)
    return stem(batch.features, batch.tokens, batch.hidden_T)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_packed_convolutions_are_torch_convolutions(size: int) -> None:
    stem = _stem(size)
    processor = VisionProcessor(VisionInputConfig(patch_size=size))

    def convolved(picture: Tensor) -> Tensor:
        pixels = picture.float() / 127.5 - 1
        mean = pixels.mean((1, 2), keepdim=True)
        apart = pixels - mean
        x = torch.cat([apart / apart.square().mean().sqrt(), mean.expand_as(pixels)])[None]
        for layer in stem.convolutions:
            x = F.gelu(
                F.conv2d(x, layer.get_parameter("weight"), layer.get_parameter("bias"), 2, 1)
            )
        rows, columns = x.shape[2:]
        row, column = (2 * (torch.arange(n) + 0.5) / n - 1 for n in (rows, columns))
        place_T2 = torch.cartesian_prod(row, column)
        return stem.projection(x[0].flatten(1).T) + stem.place(place_T2)

    packed = _packed(stem, [processor.medium(picture) for picture in _pictures()])
    assert_close(packed, torch.cat([convolved(picture) for picture in _pictures()]), "fp32")


def test_a_picture_is_the_same_alone_and_among_others() -> None:
    stem, processor = _stem(), VisionProcessor(VisionInputConfig(patch_size=8))
    media = [processor.medium(picture) for picture in _pictures()]
    together = _packed(stem, media).split([medium.num_tokens for medium in media])
    for medium, tokens in zip(media, together, strict=True):
        assert_close(tokens, _packed(stem, [medium]), "fp32")


def test_what_is_hidden_is_not_seen() -> None:
    """Neither by its own pixels nor by the mean and the deviation of the picture."""
    stem = _stem()
    torch.nn.init.normal_(stem.mask)
    processor = VisionProcessor(VisionInputConfig(patch_size=8))
    hidden = torch.tensor([True, False, True, False])
    outputs = []
    for level in (0, 255):
        picture = _pictures()[4].clone()
        picture[:, :, :8] = level
        medium = processor.medium(picture)
        batch = pack_media([medium])
        outputs.append(stem(batch.features.masked_fill(hidden[:, None], 0), batch.tokens, hidden))
    assert_close(outputs[0], outputs[1], "exact")
    seen = processor.medium(_pictures()[4][:, :, 8:])  # one column of patches is hidden
    masked = batch.features.masked_fill(hidden[:, None], 0)
    x = stem._standardised(masked, batch.tokens, hidden)[[1, 3]]
    alone = pack_media([seen])
    y = stem._standardised(alone.features, alone.tokens, alone.hidden_T)
    assert_close(x, y, "fp32")
    everything = torch.ones(4, dtype=torch.bool)
    assert stem(torch.zeros(4, 192), batch.tokens, everything).isfinite().all()


def test_a_plain_picture_is_finite_and_tells_its_colour() -> None:
    stem, processor = _stem(), VisionProcessor(VisionInputConfig(patch_size=8))
    plain = [torch.full((3, 8, 8), level, dtype=torch.uint8) for level in (0, 128, 255)]
    x = _packed(stem, [processor.medium(picture) for picture in plain])
    assert x.isfinite().all()
    assert torch.pdist(x).min() > 1e-3


def test_gradients_are_those_of_differences() -> None:
    stem = _stem(4).double()
    batch = pack_media(
        [
            Medium(Modality.VISION, torch.randn(6, 48, dtype=torch.float64), 6, (2, 3)),
            Medium(Modality.VISION, torch.randn(1, 48, dtype=torch.float64), 1, (1, 1)),
        ]
    )
    features = batch.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stem(x, batch.tokens, batch.hidden_T), features)


def test_patches_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"patch_size 14 is no power of two$"):
        ModelConfig(vision_stem="convolutional", vision_input=VisionInputConfig(patch_size=14))
    assert ModelConfig(vision_input=VisionInputConfig(patch_size=14)).vision_stem == "linear"
