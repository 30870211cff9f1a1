"""The model of images, text and speech as one Hugging Face model.

model = trimodal.load("runs/demo/model")
model.embed(image=["six.png"], text=["six"])["image"]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from trimodal.batch import (
    Matching,
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
from trimodal.config import ModelConfig
from trimodal.errors import DataError, StorageError
from trimodal.models.configuration import TrimodalConfig
from trimodal.models.decoding import Decoding
from trimodal.models.encoder import Encoder
from trimodal.models.frontends import ConvFrontend, PatchFrontend, PieceFrontend
from trimodal.models.generation import Request, default_decoding, generate, modality_of
from trimodal.models.heads import EmbeddingHead, PredictionHead
from trimodal.models.inference import embed_samples
from trimodal.models.layers import Block, Transformer
from trimodal.models.matching import ALL_DIFFER, NUM_CLASSES, matching_views
from trimodal.models.saving import no_bars
from trimodal.models.stem import ConvolutionalStem
from trimodal.processors import TrimodalProcessor
from trimodal.processors.speech import SpeechSource
from trimodal.processors.vision import ImageSource
from trimodal.schema import parse
from trimodal.views import pack_views
from trimodal.vocabulary import Vocabulary
from trimodal_kernels import Scores, segment_mean

FUSED = len(Modality)
"""The slot of `TrimodalOutput.z_NSE` after those of the modalities."""
MAX_SCALE = 100.0
"""Ceiling of the logit scale (Radford et al., 2021)."""


@dataclass
class TrimodalOutput(ModelOutput):
    """What one forward of a micro-batch computes; slots are vision, text, speech, fused."""

    z_NSE: Tensor | None = None
    """(N, 4, E) unit-norm embeddings of the samples; zeros where absent."""
    predictions: dict[str, Tensor | Scores] | None = None
    """By name of the loss, what the heads say to `Views.predictions`."""
    matching: tuple[Tensor, Tensor] | None = None
    """Logits (V, classes) and labels (V,) of the tuples of `Batch.matching`."""
    logit_scale: Tensor | None = None
    logit_bias: Tensor | None = None
    zero: Tensor | None = None
    """0, and a path of gradient 0 to every parameter that this micro-batch does not use."""


class TrimodalModel(PreTrainedModel):
    """Encoders, trunk, pooled embedding and unified-vocabulary head."""

    config_class = TrimodalConfig
    base_model_prefix = ""
    main_input_name = "media"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Block"]  # noqa: RUF012 - the type Hugging Face declares

    def __init__(self, config: TrimodalConfig) -> None:
        super().__init__(config)
        self.architecture = architecture = parse(ModelConfig, config.architecture, "architecture")
        self.vocabulary = Vocabulary(architecture.vocabulary)
        width, dim = architecture.trunk.width, architecture.embedding_dim
        patch_dim = 3 * architecture.vision_input.patch_size**2
        speech = architecture.speech_input
        width_V, size = architecture.vision.width, architecture.vision_input.patch_size
        convolves = architecture.vision_stem == "convolutional"
        frontends = {
            Modality.VISION: (
                ConvolutionalStem(size, width_V) if convolves else PatchFrontend(patch_dim, width_V)
            ),
            Modality.TEXT: PieceFrontend(self.vocabulary.size, width, architecture.text.width),
            Modality.SPEECH: ConvFrontend(speech.num_mels, architecture.speech.width),
        }
        stacks = (architecture.vision, architecture.text, architecture.speech)
        self.encoders = nn.ModuleList(
            Encoder(frontends[modality], stack, architecture)
            for modality, stack in zip(Modality, stacks, strict=True)
        )
        self.modality_embedding = nn.Embedding(len(Modality), width)
        self.route_embedding = nn.Embedding(len(Route), width)
        self.trunk = Transformer(architecture.trunk)
        self.fusion = EmbeddingHead(width, dim, orders=0)
        self.prediction_head = PredictionHead(
            architecture,
            {Modality.VISION: patch_dim, Modality.SPEECH: speech.stride * speech.num_mels},
        )
        self.matching_head = nn.Linear(width, NUM_CLASSES)
        self.shows_tuples = False
        """Run the trunk for tuples also where a rank has none, as others of its mesh may."""
        # of one dimension, because FSDP2 shards no scalars
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.zeros(1))
        self.processor_dims = (patch_dim, speech.num_mels)
        self.class_labels = tuple(config.class_labels)
        self.classifier = nn.Linear(dim, len(self.class_labels)) if self.class_labels else None
        self.processor: TrimodalProcessor | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, PatchFrontend | ConvFrontend | ConvolutionalStem):
            nn.init.normal_(module.mask, std=0.02)
        elif isinstance(module, TrimodalModel):
            module.init_special()

    def init_special(self) -> None:
        """What begins otherwise than its kind; a module whose parts are done is not visited."""
        nn.init.zeros_(self.fusion.projection.weight)
        # lengths from 7 to 55 are within a deviation, so that the first steps are no leaps
        nn.init.constant_(self.prediction_head.length.bias, 3.0)
        for stem in (module for module in self.modules() if isinstance(module, ConvolutionalStem)):
            stem.init_weights()
        for stack in (module for module in self.modules() if isinstance(module, Transformer)):
            for block in cast(list[Block], stack.blocks):
                for writer in (block.attention.o_proj, block.mlp.down_proj):
                    nn.init.trunc_normal_(writer.weight, std=stack.output_scale())

    def forward(
        self,
        num_samples: int,
        media: Mapping[Modality, MediaBatch],
        sample_N: Mapping[Modality, Tensor],
        views: Views | None = None,
        matching: Matching | None = None,
    ) -> TrimodalOutput:
        """Everything a step needs of one micro-batch, see `Batch` for the arguments.

        Solo embeddings are pooled at the encoders' exit; fused ones are what the trunk adds to the
        normalised sum of the solo ones.
        """
        exact = torch.promote_types(self.logit_scale.dtype, torch.float32)
        shape = num_samples, FUSED + 1, self.fusion.embedding_dim
        z_NSE = self.logit_scale.new_zeros(shape, dtype=exact)
        scale, bias = self.logit_scale.exp().squeeze(0), self.logit_bias.squeeze(0)
        zero = 0 * (scale + bias)
        observed, summaries, spare_TD = [], [], None
        enters = self.training or views is not None or matching is not None
        for modality in Modality:
            if modality not in media and not self.training:
                continue
            encoder = self.encoder(modality)
            batch = media[modality] if modality in media else self._placeholder(modality)
            x_TD = encoder(batch)
            z_NE = encoder.embed(x_TD, batch.tokens)
            if modality in media:
                slots = (sample_N[modality], torch.full_like(sample_N[modality], int(modality)))
                z_NSE = z_NSE.index_put(slots, z_NE[: len(slots[0])])
            if not enters:  # nothing sees more of it
                continue
            h_TD, summary_ND = encoder.to_trunk(x_TD), encoder.summarise(z_NE)
            spare_TD = h_TD[:1]
            if modality in media:
                observed.append(h_TD)
                summaries.append(summary_ND)
            else:
                zero = zero + 0 * (z_NE.sum() + h_TD.sum() + summary_ND.sum())
        nothing_TD = self.logit_scale.new_zeros(0, self.architecture.trunk.width)
        seen_TD = torch.cat([*observed, *summaries]) if observed else nothing_TD
        predictions: dict[str, Tensor | Scores] = {}
        if views is not None:
            h_TD = self.trunk(self.enter(seen_TD, views), views.tokens)
            z_NSE = self._fuse(z_NSE, h_TD, views)
            predictions = self._predict(h_TD, views)
        matched = None
        if matching is not None and torch.is_grad_enabled():
            matched = self._match(matching, z_NSE, seen_TD, media, sample_N, scale)
        if self.training and spare_TD is not None:
            spare_TD = seen_TD[:1] if observed else spare_TD
            zero = zero + 0 * self._unused(spare_TD, views, has_tuples=matched is not None)
        return TrimodalOutput(
            z_NSE=z_NSE,
            predictions=predictions,
            matching=matched,
            logit_scale=scale,
            logit_bias=bias,
            zero=zero,
        )

    if TYPE_CHECKING:
        __call__ = forward

    @torch.no_grad()
    def bound_scale(self) -> None:
        """Keep the logit scale below its ceiling; a training step ends with it.

        A ceiling within the forward would have no gradient above it, and hold the scale there.
        """
        self.logit_scale.clamp_(max=math.log(MAX_SCALE))

    @torch.no_grad()
    def start_sigmoid(self) -> None:
        """Scale and bias at which the sigmoid loss begins (Zhai et al., 2023, section 3.2).

        Most pairs are negative, so a bias of 0 would make the first steps corrections of it.
        """
        self.logit_scale.fill_(math.log(10.0))
        self.logit_bias.fill_(-10.0)

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of one modality."""
        return cast(Encoder, self.encoders[int(modality)])

    @property
    def table(self) -> Tensor:
        """The one table (V, D) of the unified vocabulary, to which the output head is tied."""
        return cast(PieceFrontend, self.encoder(Modality.TEXT).frontend).table.weight

    def observe(self, media: Mapping[Modality, MediaBatch]) -> Tensor:
        """What views can see of media (T, D), see `Views.source_T`."""
        tokens, summaries = [], []
        for modality in sorted(media):
            encoder = self.encoder(modality)
            x_TD = encoder(media[modality])
            tokens.append(encoder.to_trunk(x_TD))
            summaries.append(encoder.summarise(encoder.embed(x_TD, media[modality].tokens)))
        nothing_TD = self.table.new_zeros(0, self.table.shape[1])
        return torch.cat([*tokens, *summaries]) if media else nothing_TD

    def enter(self, observed_TD: Tensor, views: Views) -> Tensor:
        """Trunk inputs (T, D): a gather over what is observed and the ids that enter directly."""
        tokens, direct_TD = views.tokens, F.embedding(views.direct_T, self.table)
        h_TD = torch.cat([observed_TD, direct_TD.to(observed_TD.dtype)])
        h_TD = h_TD.index_select(0, views.source_T)
        return h_TD + self._kind(tokens)

    def _kind(self, tokens: TokenBatch) -> Tensor:
        """(T, D): of which modality each token is, and how it enters the trunk."""
        return self.modality_embedding(tokens.modality_T) + self.route_embedding(tokens.route_T)

    def _fuse(self, z_NSE: Tensor, h_TD: Tensor, views: Views) -> Tensor:
        """Fill the fused slot: the normalised sum of the members, plus what the trunk adds."""
        solo_VE = (z_NSE[views.fused_sample_V, :FUSED] * views.members_V3[:, :, None]).sum(1)
        added_VE = self.fusion(h_TD, views.tokens)[views.fused_V]
        fused_VE = F.normalize(F.normalize(solo_VE, dim=-1) + added_VE, dim=-1)
        slot = torch.full_like(views.fused_sample_V, FUSED)
        return z_NSE.index_put((views.fused_sample_V, slot), fused_VE)

    def _match(
        self,
        matching: Matching,
        z_NSE: Tensor,
        observed_TD: Tensor,
        media: Mapping[Modality, MediaBatch],
        sample_N: Mapping[Modality, Tensor],
        scale: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels of tuples; two media have two set partitions of the five."""
        chosen, label_V = matching_views(matching, z_NSE, sample_N, scale)
        on_cpu, summaries = to_device(media, "cpu"), self.architecture.summaries
        views = pack_views(chosen, on_cpu, summaries=summaries)
        views = to_device(views, observed_TD.device)
        h_TD = self.trunk(self.enter(observed_TD, views), views.tokens)
        pooled_VD = segment_mean(h_TD, views.tokens.cu_seqlens)
        logits_VC = self.matching_head(pooled_VD.to(h_TD.dtype)).float()
        pair_V1 = (matching.members_V3.sum(1) == 2)[:, None]
        impossible_C = torch.ones(NUM_CLASSES, dtype=torch.bool, device=h_TD.device)
        impossible_C[[0, ALL_DIFFER]] = False
        return logits_VC.masked_fill(pair_V1 & impossible_C, float("-inf")), label_V

    def _predict(self, h_TD: Tensor, views: Views) -> dict[str, Tensor | Scores]:
        return {
            name: self._head(name, h_TD.index_select(0, prediction.token_K), prediction)
            for name, prediction in views.predictions.items()
        }

    def _head(self, name: str, h_KD: Tensor, prediction: Prediction) -> Tensor | Scores:
        head, modality = self.prediction_head, prediction.modality
        ids = self.vocabulary.range_of(modality)
        loss = name.partition("_")[0]
        if loss == "length":
            return head.lengths(h_KD)
        if loss == "quantised":
            return head.quantised(h_KD)
        if loss == "causal":
            return head.ids(h_KD, self.table, self.vocabulary.continuations)
        if prediction.target.is_floating_point():
            return head.values(h_KD, modality)
        if prediction.target.dim() == 2:
            return head.codes(h_KD, self.table, modality, ids)
        return head.ids(h_KD, self.table, ids)

    def continuations(self, h_KD: Tensor) -> Tensor:
        """Logits (K, size + 1) of the end of a text and of its pieces."""
        ids = self.vocabulary.continuations
        return self.prediction_head.ids(h_KD, self.table, ids).logits()

    def code_logits(self, h_KD: Tensor, modality: Modality) -> Tensor:
        """Logits (K, size) of the codes of a target picture or utterance."""
        ids = self.vocabulary.range_of(modality)
        return self.prediction_head.ids(h_KD, self.table, ids).logits()

    def known_ids(self, modality: Modality) -> int:
        """How many of the logits of `code_logits` or `continuations` stand for something."""
        processor = self._require_processor()
        if modality is Modality.TEXT:
            return 1 + processor.text.num_pieces
        return processor.codes.num_codes(modality) if processor.codes else 0

    def _placeholder(self, modality: Modality) -> MediaBatch:
        """One empty token, so that every rank runs every module in every step.

        Collectives of sharded modules then match whatever media a rank happens to hold.
        """
        shape = {
            Modality.VISION: (1, self.processor_dims[0]),
            Modality.TEXT: (1,),
            Modality.SPEECH: (self.architecture.speech_input.stride, self.processor_dims[1]),
        }[modality]
        dtype = torch.int64 if modality is Modality.TEXT else torch.float32
        medium = Medium(modality, torch.zeros(shape, dtype=dtype), 1, (1, 1))
        return to_device(pack_media([medium]), self.logit_scale.device)

    def _unused(self, observed_TD: Tensor, views: Views | None, *, has_tuples: bool) -> Tensor:
        """A scalar through the trunk, fusion, heads and classifier that this batch leaves out."""
        head, h_TD = self.matching_head, observed_TD
        total = self.prediction_head.unused() + head.weight.sum() + head.bias.sum()
        if views is None:
            h_TD, tokens = self._through_trunk(observed_TD)
            total = total + self.fusion(h_TD, tokens).sum()
        if self.classifier is not None:
            total = total + self.classify(self.fusion.projection(h_TD)).sum()
        if self.shows_tuples and not has_tuples and torch.is_grad_enabled():
            total = total + self._through_trunk(observed_TD)[0].sum()
        return total

    def _through_trunk(self, observed_1D: Tensor) -> tuple[Tensor, TokenBatch]:
        """One token of no sample, and where it lies."""
        tokens = self._placeholder(Modality.TEXT).tokens
        return self.trunk(observed_1D + self._kind(tokens), tokens), tokens

    def embed(
        self,
        image: Sequence[ImageSource | None] | None = None,
        text: Sequence[str | None] | None = None,
        speech: Sequence[SpeechSource | None] | None = None,
        token_budget: int = 16_384,
    ) -> dict[str, np.ndarray]:
        """Embed media row by row.

        Args:
            image: paths, encoded bytes, pictures or uint8 arrays; None where absent.
            text: strings; None where absent.
            speech: paths, encoded bytes or (samples, rate); None where absent.
            token_budget: tokens computed at once.

        Returns:
            `image`, `text`, `speech`, `fused`: (N, E) float32 of unit norm, NaN rows where absent.
            `fused` is the embedding of all that a row holds.

        Raises:
            DataError: a medium cannot be read, the lists do not fit together, or none is given.
        """
        return self.embed_samples(self._require_processor()(image, text, speech), token_budget)

    def _require_processor(self) -> TrimodalProcessor:
        if self.processor is None:
            raise StorageError("this model has no processor; load it with trimodal.load")
        return self.processor

    def generate(
        self,
        image: Sequence[ImageSource | None] | None = None,
        text: Sequence[str | None] | None = None,
        speech: Sequence[SpeechSource | None] | None = None,
        *,
        to: str,
        lang: str | None = None,
        answer: bool = False,
        complete: Sequence[str | None] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        decoding: Decoding | None = None,
    ) -> list[str] | list[np.ndarray]:
        """Generate a text, a picture or speech from what each row observes.

        Args:
            image: as in `embed`.
            text: as in `embed`; with `answer`, written questions.
            speech: as in `embed`; with `answer`, spoken questions.
            to: `text`, `image` or `speech`.
            lang: `en` or `zh`, of a text or an utterance; None leaves it open.
            answer: answer the question, instead of saying what is observed.
            complete: texts that the outputs begin with; rows may observe nothing beside them.
            size: height and width of pictures in pixels, else `model.picture_size`.
            seed: row i draws with `seed + i`, whatever else is in the call.
            decoding: how ids are chosen, else `default_decoding`.

        Returns:
            Texts, (H, W, 3) uint8 pictures, or (S,) float32 samples at `sample_rate`.

        Raises:
            DataError: a medium cannot be read, or nothing is given.
            ConfigError: an option that cannot be, or no tokenizer of that modality.
        """
        processor = self._require_processor()
        request = Request(to=modality_of(to), lang=lang, answer=answer, size=size)
        samples, begun = processor.conditions(image, text, speech, complete)
        seeds = [seed + i for i in range(len(samples))]
        decoding = decoding or default_decoding(request.to)
        made = generate(self, samples, request, decoding, seeds, begun)
        return [one.output for one in made]  # pyright: ignore[reportReturnType]

    @property
    def sample_rate(self) -> int:
        """Of generated speech, in Hz."""
        return self.architecture.speech_input.sample_rate

    def embed_samples(
        self, samples: Sequence[Sample], token_budget: int = 16_384
    ) -> dict[str, np.ndarray]:
        """The same for media that a processor has turned into numbers."""
        return embed_samples(self, samples, token_budget)

    def classify(self, z_NE: Tensor) -> Tensor:
        """Logits (N, C) of `class_labels` from unit-norm embeddings.

        Raises:
            StorageError: the model has no classification head.
        """
        if self.classifier is None:
            raise StorageError("this model has no classification head; trimodal.finetune adds one")
        # unit vectors are too short for a linear head to be sure of anything
        return self.classifier(z_NE * self.fusion.embedding_dim**0.5).float()

    def classify_samples(self, samples: Sequence[Sample], token_budget: int = 16_384) -> np.ndarray:
        """Probabilities (N, C) of `class_labels`, from the media that the head was trained on.

        Raises:
            StorageError: the model has no classification head.
            DataError: a sample has none of these media.
        """
        seen = {Modality.of(name) for name in self.config.class_inputs}
        chosen = []
        for sample in samples:
            media = {m: medium for m, medium in sample.media.items() if m in seen}
            if not media:
                names = ", ".join(self.config.class_inputs)
                raise DataError(f"sample {sample.id} has nothing to classify from: {names}")
            chosen.append(replace(sample, media=media))
        z_NE = torch.from_numpy(self.embed_samples(chosen, token_budget)["fused"])
        with torch.inference_mode():
            logits = self.classify(z_NE.to(self.device))
        return logits.softmax(-1).cpu().numpy()

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write weights, configuration and processor: all that embedding and serving need."""
        with no_bars():
            super().save_pretrained(save_directory, *args, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)
