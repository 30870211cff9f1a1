"""The encoder of one modality: what is its own up to the trunk and the embedding.

x_TD = encoder(media)
z_NE = encoder.embed(x_TD, media.tokens)
"""

import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import MediaBatch, TokenBatch
from trimodal.config import ModelConfig, TransformerConfig
from trimodal.models.heads import EmbeddingHead
from trimodal.models.layers import Transformer


class Encoder(nn.Module):
    """A frontend, blocks, the way into the trunk and the way into the embedding."""

    def __init__(
        self, frontend: nn.Module, config: TransformerConfig, architecture: ModelConfig
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.transformer = Transformer(config)
        self.to_trunk = nn.Linear(config.width, architecture.trunk.width, bias=False)
        self.embedding = EmbeddingHead(
            config.width, architecture.embedding_dim, architecture.pooling_orders
        )
        dim, width = architecture.embedding_dim, architecture.trunk.width
        self.summary = nn.Linear(dim, width, bias=False) if architecture.summaries else None

    def forward(self, media: MediaBatch) -> Tensor:
        """Packed features to packed tokens (T, D)."""
        x_TD = self.frontend(media.features, media.tokens, media.hidden_T)
        return self.transformer(x_TD, media.tokens)

    def embed(self, x_TD: Tensor, tokens: TokenBatch) -> Tensor:
        """Unit-norm embeddings (N, E) of encoded media."""
        return F.normalize(self.embedding(x_TD, tokens), dim=-1)

    def summarise(self, z_NE: Tensor) -> Tensor:
        """Embeddings as tokens (N, D) of the trunk, which finds in them what took long to learn.

        Without summaries (0, D).
        """
        if self.summary is None:
            return z_NE.new_zeros(0, self.to_trunk.out_features)
        return self.summary(z_NE.to(self.summary.weight.dtype) * z_NE.shape[-1] ** 0.5)
