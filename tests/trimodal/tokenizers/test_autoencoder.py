import pytest
import torch

from trimodal.testing import assert_close
from trimodal.tokenizers.autoencoder import ChannelNorm, Decoder, Encoder, ResidualBlock


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("strides", [(2, 2), (7,), (3, 2), (1,)])
def test_sizes_go_down_by_the_strides_and_up_again(dims: int, strides: tuple[int, ...]) -> None:
    size = {"strides": strides, "width": 8, "depth": 1, "kernel": 3}
    total = int(torch.tensor(strides).prod())
    x = torch.randn(2, 3, *[total * n for n in (2, 3)[:dims]])
    latent = Encoder(dims, 3, 5, **size)(x)
    assert latent.shape == (2, 5, *(2, 3)[:dims])
    assert Decoder(dims, 5, 3, **size)(latent).shape == x.shape


def test_norm_is_of_each_position_alone() -> None:
    x = torch.randn(2, 6, 4, 5)
    x[0, :, 1, 2] *= 100
    normed = ChannelNorm(6)(x)
    assert_close(normed[:, :, 3, 3], torch.nn.functional.layer_norm(x[:, :, 3, 3], (6,)), "fp32")
    changed = x.clone()
    changed[0, :, 1, 2] = 0
    others = torch.ones(4, 5, dtype=torch.bool)
    others[1, 2] = False
    assert torch.equal(ChannelNorm(6)(changed)[0][:, others], normed[0][:, others])


def test_a_new_block_is_the_identity() -> None:
    x = torch.randn(2, 6, 9)
    assert torch.equal(ResidualBlock(1, 6, 3)(x), x)


def test_new_latents_spread_over_the_levels() -> None:
    encoder = Encoder(2, 3, 4, strides=(2,), width=64, depth=1, kernel=3)
    deviation = encoder(torch.rand(8, 3, 16, 16) * 2 - 1).std(dim=(0, 2, 3))
    assert (deviation > 0.2).all()
    assert (deviation < 2.0).all()


def test_a_picture_far_larger_than_the_receptive_field_has_codes_that_do_not_see_each_other() -> (
    None
):
    encoder = Encoder(2, 3, 4, strides=(2,), width=8, depth=1, kernel=3)
    x = torch.randn(1, 3, 32, 32)
    changed = x.clone()
    changed[..., 24:] = 0
    a, b = encoder(x), encoder(changed)
    assert torch.equal(a[..., :8], b[..., :8])
    assert not torch.equal(a[..., 12:], b[..., 12:])


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("strides", "depth"), [((2, 2), 1), ((3,), 2), ((1, 4), 0)])
def test_what_is_settled_does_not_see_what_comes_later_and_no_more_is(
    strides: tuple[int, ...], depth: int, kernel: int
) -> None:
    decoder = Decoder(1, 3, 4, strides=strides, width=8, depth=depth, kernel=kernel)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 3, 40)
    with torch.no_grad():
        before = decoder(x)
        for inputs in range(40):
            changed = x.clone()
            changed[..., inputs:] += 1
            differs = (decoder(changed) != before).any(dim=1)[0]
            assert decoder.settled(inputs) == int(differs.int().argmax())
