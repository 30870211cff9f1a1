"""The towers in transformers' own layers, for a peer that loads a folder by its classes.

The file is copied into the folder, see `export`; it is run by the peer and imports nothing of ours.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, Qwen3Config
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm


class TowersConfig(PretrainedConfig):
    """Sizes of both towers, which are alike."""

    model_type = "towers"

    def __init__(
        self,
        width: int = 384,
        depth: int = 6,
        num_heads: int = 12,
        hidden: int = 1024,
        vocab_size: int = 4000,
        patch_size: int = 32,
        rope_theta: float = 10_000.0,
        embedding_dim: int = 384,
        max_position_embeddings: int = 256,
        **kwargs: Any,
    ) -> None:
        self.width = self.hidden_size = width
        self.depth = depth
        self.num_heads = num_heads
        self.hidden = hidden
        self.vocab_size = vocab_size
        self.patch_size = patch_size
        self.rope_theta = rope_theta
        self.embedding_dim = embedding_dim
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**kwargs)


class Tower(nn.Module):
    """Blocks of Qwen3, each token of an item seeing all others."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        blocks = Qwen3Config(
            hidden_size=config.width,
            intermediate_size=config.hidden,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            head_dim=config.width // config.num_heads,
            rms_norm_eps=1e-6,
        )
        blocks._attn_implementation = "sdpa"
        self.layers = nn.ModuleList(Qwen3DecoderLayer(blocks, i) for i in range(config.depth))
        for layer in self.layers:
            cast(Any, layer).self_attn.is_causal = False
        self.norm = Qwen3RMSNorm(config.width, eps=1e-6)
        self.projection = nn.Linear(config.width, config.embedding_dim, bias=False)
        quarter = config.width // config.num_heads // 4
        frequency = config.rope_theta ** -(torch.arange(quarter).float() / quarter)
        self.register_buffer("frequency", frequency)

    def forward(self, x_NLD: Tensor, position_L2: Tensor, mask_NL: Tensor | None) -> Tensor:
        """(N, L, D) to (N, L, D)."""
        angle_Lk = (position_L2.float()[:, :, None] * cast(Tensor, self.frequency)).flatten(1)
        angle_1LK = torch.cat([angle_Lk, angle_Lk], dim=-1)[None]
        rotary = angle_1LK.cos(), angle_1LK.sin()
        mask = None
        if mask_NL is not None and not bool(mask_NL.all()):
            mask = mask_NL.bool()[:, None, None].expand(-1, 1, mask_NL.shape[1], -1)
        for layer in self.layers:
            x_NLD = layer(x_NLD, attention_mask=mask, position_embeddings=rotary)
            x_NLD = x_NLD[0] if isinstance(x_NLD, tuple) else x_NLD
        return self.norm(x_NLD)


class TowersModel(PreTrainedModel):
    """What CLIP's classes have: features of texts and of pictures."""

    config_class = TowersConfig
    _supports_sdpa = True

    def __init__(self, config: TowersConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.width)
        self.patches = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.text, self.vision = Tower(config), Tower(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> BaseModelOutput:
        """The tokens of texts, which sentence-transformers pools itself."""
        position_L = torch.arange(input_ids.shape[1], device=input_ids.device)
        position_L2 = torch.stack([position_L, position_L], dim=1)
        x_NLD = self.text(self.table(input_ids), position_L2, attention_mask)
        return BaseModelOutput(last_hidden_state=x_NLD)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> Tensor:
        """(N, E) of texts."""
        x_NLD = self(input_ids, attention_mask).last_hidden_state
        if attention_mask is None:
            pooled = x_NLD.mean(1)
        else:
            share = attention_mask / attention_mask.sum(1, keepdim=True)
            pooled = (x_NLD * share[:, :, None]).sum(1)
        return F.normalize(self.text.projection(pooled), dim=-1)

    def get_image_features(self, pixel_values: Tensor, **_: object) -> Tensor:
        """(N, E) of pictures (N, 3, H, W)."""
        x_NDHW = self.patches(pixel_values)
        rows, columns = x_NDHW.shape[2:]
        place = torch.arange(rows * columns, device=x_NDHW.device)
        position_L2 = torch.stack([place // columns, place % columns], dim=1)
        x_NLD = self.vision(x_NDHW.flatten(2).transpose(1, 2), position_L2, None)
        return F.normalize(self.vision.projection(x_NLD.mean(1)), dim=-1)
