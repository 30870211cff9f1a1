import torch
import torch.nn.functional as F

from trimodal.batch import Medium, Modality, pack_media
from trimodal.models.frontends import ConvFrontend, PatchFrontend
from trimodal.testing import assert_close


def speech(tokens: int, mels: int = 8) -> Medium:
    return Medium(Modality.SPEECH, torch.randn(4 * tokens, mels), tokens, (tokens, 1))


def test_packed_convolutions_are_torch_convolutions() -> None:
    frontend = ConvFrontend(8, 6)
    media = [speech(n) for n in (1, 5, 2, 17)]
    batch = pack_media(media)
    packed = frontend(batch.features, batch.tokens, batch.hidden_T)

    def convolution(linear: torch.nn.Linear, x_FC: torch.Tensor) -> torch.Tensor:
        channels = x_FC.shape[1]
        weight = linear.weight.view(-1, 4, channels).transpose(1, 2)  # (out, in, 4)
        return F.gelu(F.conv1d(x_FC.T[None], weight, linear.bias, stride=2, padding=1)[0].T)

    expected = [
        frontend.projection(convolution(frontend.second, convolution(frontend.first, m.features)))
        for m in media
    ]
    assert_close(packed, torch.cat(expected), "fp32")


def test_hidden_tokens_get_the_learnt_vector() -> None:
    frontend = PatchFrontend(12, 6)
    torch.nn.init.normal_(frontend.mask)
    patches = torch.zeros(3, 12)
    batch = pack_media([Medium(Modality.VISION, patches, 3, (1, 3))])
    hidden = torch.tensor([False, True, False])
    x = frontend(batch.features, batch.tokens, hidden)
    assert_close(x[1] - x[0], frontend.mask, "fp32")
