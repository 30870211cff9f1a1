"""Targets for masked speech that no training is needed for (Chiu et al., 2022, arXiv 2202.01855).

targets_TC = BestRQ(num_mels=64, stride=4, num_codebooks=4, codebook_size=1024).targets(frames_FM)
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.streams import generator
from trimodal_kernels import nearest


class BestRQ:
    """A random projection of stacked frames, and the nearest of random unit vectors.

    A pure function of its arguments: nothing is stored, and every process has the same.
    """

    def __init__(
        self,
        *,
        num_mels: int,
        stride: int = 4,
        num_codebooks: int = 4,
        codebook_size: int = 1024,
        dim: int = 16,
        seed: int = 0,
    ) -> None:
        self.stride = stride
        inputs = stride * num_mels
        rng = generator("best-rq", seed, inputs, num_codebooks, codebook_size, dim)
        bound = np.sqrt(6 / (inputs + dim))  # Xavier, as in the paper
        self.projection_PD = torch.from_numpy(rng.uniform(-bound, bound, (inputs, dim))).float()
        codebooks = rng.standard_normal((num_codebooks, codebook_size, dim))
        self.codebooks_CKD = F.normalize(torch.from_numpy(codebooks), dim=-1).float()

    @torch.no_grad()
    def targets(self, frames_FM: Tensor) -> Tensor:
        """(T, num_codebooks) int64; T is F over the stride, rounded up.

        Args:
            frames_FM: normalised log-mel frames; zeros, their mean, fill the last token.
        """
        missing = -len(frames_FM) % self.stride
        stacked_TP = F.pad(frames_FM, (0, 0, 0, missing)).reshape(-1, self.projection_PD.shape[0])
        projected_TD = stacked_TP @ self.projection_PD.to(stacked_TP.device)
        return nearest(projected_TD, self.codebooks_CKD.to(stacked_TP.device))
