"""Training of a vision tokenizer.

task = VisionTask(config, read_manifests(paths))
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from trimodal.data.row import Row
from trimodal.processors import VisionProcessor
from trimodal.processors.augmentation import augment_image
from trimodal.processors.vision import unpatched
from trimodal.streams import generator
from trimodal.tokenizers.vision import VisionTokenizer
from trimodal.training.tokenizers.config import VisionTokenizerTraining
from trimodal.training.tokenizers.discriminator import PatchDiscriminator
from trimodal.training.tokenizers.losses import psnr, spread_loss, ssim
from trimodal.training.tokenizers.media import MediaFiles
from trimodal.training.tokenizers.task import Outcome, Task


class VisionTask(Task[VisionTokenizer]):
    """Pictures as the model will see them, augmented and cropped; L1 and structural similarity."""

    def __init__(self, config: VisionTokenizerTraining, rows: Sequence[Row]) -> None:
        super().__init__(config.seed, config.training, config.adversarial)
        self.config = config
        self.processor = VisionProcessor(config.vision_input)
        self.files = MediaFiles(
            rows,
            "image",
            lambda path: (self.processor.decode(path),),
            int(config.cache_gigabytes * 2**30),
        )
        self.module = VisionTokenizer(config.tokenizer)
        self.num_codes = config.tokenizer.num_codes

    def pixels(self, step: int, index: int) -> Tensor:
        """(3, H, W) in [-1, 1], sides that are multiples of the stride and at most `crop`."""
        (image,) = self.files[index]
        keys = (self.seed, step, index)
        image = augment_image(image, self.config.augment, generator("augment", *keys))
        medium = self.processor.medium(image)
        pixels = unpatched(medium.features, medium.grid, self.config.vision_input.patch_size)
        stride = self.config.tokenizer.stride
        most = self.config.crop // stride * stride
        rng = generator("crop", *keys)
        for dim in (1, 2):
            size = min(pixels.shape[dim], most)
            start = int(rng.integers(pixels.shape[dim] - size + 1))
            pixels = pixels.narrow(dim, start, size)
        return pixels

    def outcomes(self, step: int) -> Iterator[Outcome]:
        """Pictures of equal size together."""
        indices = self.files.indices(step, self.schedule.batch_size, self.seed)
        groups: dict[torch.Size, list[Tensor]] = {}
        for place, index in enumerate(indices):
            pixels = self.pixels(step * self.schedule.batch_size + place, index)
            groups.setdefault(pixels.shape, []).append(pixels)
        for group in groups.values():
            target = torch.stack(group).to(self.device)
            pixels, codes, latent = self.module(target)
            loss = (pixels - target).abs().mean()
            similarity = ssim(pixels, target)
            loss = loss + self.config.ssim_weight * (1 - similarity)
            loss = loss + self.config.spread_weight * spread_loss(latent.flatten(0, -2))
            error = float((pixels.detach().clamp(-1, 1) - target).square().mean())
            yield Outcome(
                loss=loss,
                share=len(group) / len(indices),
                real=target,
                fake=pixels,
                codes=codes,
                metrics={"mse": error, "ssim": float(similarity.detach())},
            )

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        """PSNR in dB in place of the mean squared error."""
        return {"psnr": psnr(means["mse"]), "ssim": means["ssim"]}

    def discriminator(self) -> nn.Module:
        """Of patches of pixels."""
        return PatchDiscriminator(3, self.adversarial.width)
