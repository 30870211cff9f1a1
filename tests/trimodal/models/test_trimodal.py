from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoProcessor

import trimodal
from trimodal.assembly import Masking, Writing, assemble
from trimodal.batch import Batch, Modality, Route, Sample, Target
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.models.layers import Block
from trimodal.models.stem import ConvolutionalStem
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import assert_close, tiny_model, tiny_model_config
from trimodal.vocabulary import Special, prompt
from trimodal_kernels import Scores

ALL = frozenset(Modality)


def samples_of(model: TrimodalModel, media: dict[str, Any]) -> list[Sample]:
    assert model.processor is not None
    return model.processor(**media)


def logits_of(answer: Tensor | Scores) -> Tensor:
    return answer.logits() if isinstance(answer, Scores) else answer


def batch_of(samples: list[Sample], masked: Modality | None = None) -> Batch:
    maskings: list[Masking | None] = []
    for sample in samples:
        if masked is None or masked not in sample.media:
            maskings.append(None)
            continue
        hidden = np.zeros(sample.media[masked].num_tokens, dtype=bool)
        hidden[::2] = True
        maskings.append(Masking(masked, hidden, ALL & set(sample.media) - {masked}))
    fused = [frozenset(s.media) if len(s.media) > 1 else None for s in samples]
    return assemble(samples, fused, maskings, summaries=True)


@pytest.mark.parametrize("present", [["image"], ["text"], ["speech"], ["image", "speech"]])
def test_every_parameter_gets_a_gradient_whatever_is_absent(
    model: TrimodalModel, media: dict[str, Any], present: list[str]
) -> None:
    model.train()
    batch = batch_of(samples_of(model, {k: [media[k][0]] for k in present}))
    output = model(**batch.inputs())
    assert output.z_NSE is not None
    assert output.zero is not None
    weight_E = torch.linspace(-1, 1, output.z_NSE.shape[-1])
    ((output.z_NSE * weight_E).sum() + output.zero).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    used = {Modality.of(name) for name in present}
    for modality in set(Modality) - used:
        for p in model.encoder(modality).parameters():
            assert p.grad is not None
            assert not p.grad.any()
    for modality in used:
        assert any(
            p.grad is not None and p.grad.any() for p in model.encoder(modality).parameters()
        )


def test_placeholders_change_nothing(model: TrimodalModel, media: dict[str, Any]) -> None:
    batch = batch_of(samples_of(model, {"image": media["image"][:1]}))
    quiet = model(**batch.inputs()).z_NSE
    model.train()
    output = model(**batch.inputs())
    assert_close(output.z_NSE, quiet, "exact")
    assert output.zero is not None
    assert float(output.zero.detach()) == 0.0


@pytest.mark.parametrize("modality", list(Modality))
def test_predictions_do_not_see_what_is_hidden(
    model: TrimodalModel, media: dict[str, Any], modality: Modality
) -> None:
    """Changing hidden features changes the target and not the prediction."""
    samples = [s for s in samples_of(model, media) if modality in s.media]
    changed = []
    for sample in samples:
        medium = sample.media[modality]
        features = medium.features.clone()
        per_token = len(features) // medium.num_tokens
        hidden = torch.arange(len(features)) // per_token % 2 == 0
        features[hidden] = features[hidden] + 1
        changed.append(
            replace(sample, media={**sample.media, modality: replace(medium, features=features)})
        )
    before, after = (batch_of(s, modality) for s in (samples, changed))
    name = f"masked_{modality.name.lower()}"
    with torch.no_grad():
        first = model(**before.inputs()).predictions
        # the clean copy of a changed medium is encoded too and must not leak
        second = model(**after.inputs()).predictions
    assert before.views is not None
    assert after.views is not None
    assert not torch.equal(
        before.views.predictions[name].target, after.views.predictions[name].target
    )
    assert_close(logits_of(second[name]), logits_of(first[name]), "packed-vs-alone-fp32")


def test_predictions_use_the_other_modalities(model: TrimodalModel, media: dict[str, Any]) -> None:
    samples = samples_of(model, {k: [v[0]] for k, v in media.items()})
    other = samples_of(model, {**{k: [v[0]] for k, v in media.items()}, "text": ["红色"]})
    with torch.no_grad():
        first, second = (
            model(**batch_of(s, Modality.VISION).inputs()).predictions["masked_vision"]
            for s in (samples, other)
        )
    assert not np.allclose(first, second, atol=1e-4)


def test_targets_are_what_was_hidden(model: TrimodalModel, media: dict[str, Any]) -> None:
    samples = samples_of(model, {k: [v[0]] for k, v in media.items()})
    for modality in Modality:
        batch = batch_of(samples, modality)
        assert batch.views is not None
        prediction = batch.views.predictions[f"masked_{modality.name.lower()}"]
        medium = samples[0].media[modality]
        rows = medium.features.reshape(medium.num_tokens, -1)[::2]
        assert torch.equal(prediction.target.reshape(rows.shape), rows)
        modalities = batch.views.tokens.modality_T[prediction.token_K]
        assert (modalities == int(modality)).all()
        assert len(prediction.token_K) == len(rows)


def test_save_and_load_keep_every_number(
    model: TrimodalModel, media: dict[str, Any], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = trimodal.load(tmp_path)
    for name, vectors in model.embed(**media).items():
        assert_close(again.embed(**media)[name], vectors, "exact")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "speech_tokenizer",
        "text.model",
        "vision_tokenizer",
    ]
    options = {"decoding": Decoding(max_tokens=4), "seed": 3}
    for to in ("text", "image", "speech"):
        for made in zip(
            model.generate(text=["red"], to=to, **options),
            again.generate(text=["red"], to=to, **options),
            strict=True,
        ):
            assert np.array_equal(*made)


def test_auto_classes_know_the_model(model: TrimodalModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, TrimodalProcessor)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, TrimodalModel)
    again.processor = processor
    vectors = [each.eval().embed(text=["a red square"])["text"] for each in (again, model)]
    assert_close(vectors[0], vectors[1], "exact")


def test_half_precision_embeds_everything() -> None:
    media = {
        "image": [np.full((8, 8, 3), 90, np.uint8)],
        "text": ["red"],
        "speech": [(np.sin(np.arange(4000) / 9).astype(np.float32), 16_000)],
    }
    full = tiny_model().embed(**media)
    half = tiny_model().bfloat16().embed(**media)
    for name, vectors in full.items():
        assert half[name].dtype == np.float32
        assert_close(half[name], vectors, "bf16")


def test_a_convolutional_stem_begins_saves_and_halves_like_the_rest(tmp_path: Path) -> None:
    config = replace(tiny_model_config(), vision_stem="convolutional")
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(config))).eval()
    stem = model.encoder(Modality.VISION).frontend
    assert isinstance(stem, ConvolutionalStem)
    weight = stem.convolutions[-1].get_parameter("weight")
    assert float(weight.detach().std()) == pytest.approx(weight[0].numel() ** -0.5, rel=0.05)
    model.processor = tiny_model().processor
    pictures = [np.full((8, 12, 3), 90, np.uint8), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)]
    vectors = model.embed(image=pictures)["image"]
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    again.processor = model.processor
    assert_close(again.embed(image=pictures)["image"], vectors, "exact")
    assert_close(model.bfloat16().embed(image=pictures)["image"], vectors, "bf16")


def test_the_scale_is_bound_and_can_fall_again() -> None:
    model = tiny_model().train()
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model.bound_scale()
    batch = assemble(samples_of(model, {"text": ["red"]}), summaries=True)
    scale = model(**batch.inputs()).logit_scale
    assert scale is not None
    assert_close(scale, 100.0, "fp32")
    scale.backward()
    assert model.logit_scale.grad is not None
    assert_close(model.logit_scale.grad, torch.tensor([100.0]), "fp32")


def test_embedding_without_a_processor_says_how_to_get_one() -> None:
    bare = TrimodalModel(TrimodalConfig(architecture=to_dict(tiny_model_config())))
    with pytest.raises(StorageError, match=r"trimodal\.load"):
        bare.embed(text=["a"])


def test_an_embedding_of_one_medium_ends_at_its_encoder(
    model: TrimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.embed(text=["red"])
    for name in ("to_trunk", "summarise"):
        for encoder in model.encoders:
            monkeypatch.setattr(encoder, name, None)
    assert_close(model.embed(text=["red"])["fused"], expected["fused"], "fp32")
    with pytest.raises(TypeError):
        model.embed(text=["red"], image=[np.zeros((8, 8, 3), np.uint8)])


def test_nothing_to_embed_is_an_error_and_no_rows_are_none(model: TrimodalModel) -> None:
    with pytest.raises(DataError, match="nothing is given: name a list of image, text or speech"):
        model.embed()
    assert model.embed(text=[])["fused"].shape == (0, 16)


def test_a_bad_medium_is_named(model: TrimodalModel) -> None:
    with pytest.raises(DataError, match=r"image\[1\]: image is not a PNG"):
        model.embed(image=[np.zeros((4, 4), np.uint8), b"no picture"])


def test_an_unknown_key_of_the_architecture_is_named() -> None:
    with pytest.raises(ConfigError, match=r"architecture\.widht"):
        TrimodalConfig(architecture={"widht": 3})


def test_classification_drops_what_the_head_never_saw(model: TrimodalModel) -> None:
    config = TrimodalConfig(
        architecture=to_dict(tiny_model_config()), class_labels=["a", "b"], class_inputs=["image"]
    )
    head = TrimodalModel(config).eval()
    head.processor = model.processor
    picture = np.full((8, 8, 3), 200, np.uint8)
    assert model.processor is not None
    with_text = model.processor(image=[picture], text=["b"])
    without = model.processor(image=[picture])
    assert_close(head.classify_samples(with_text), head.classify_samples(without), "exact")
    assert_close(head.classify_samples(without).sum(1), [1.0], "fp32")
    with pytest.raises(DataError, match="nothing to classify"):
        head.classify_samples(model.processor(text=["b"]))
    with pytest.raises(StorageError, match="no classification head"):
        model.classify_samples(without)


def test_lora_reaches_the_linears_and_merges(model: TrimodalModel, media: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.eval()
    with_adapters: Tensor = torch.from_numpy(model.embed(**media)["fused"])
    merged = adapted.merge_and_unload()
    assert isinstance(merged, TrimodalModel)
    assert_close(merged.embed(**media)["fused"], with_adapters, "packed-vs-alone-fp32")


CODES = {Modality.VISION: (2, 3), Modality.SPEECH: (5, 1)}


def asking(
    model: TrimodalModel, samples: list[Sample], modality: Modality, step: int, extra: int = 0
) -> Batch:
    """Every sample fused, and asked for a target of `modality`, drawn and hidden by `step`."""
    generator = torch.Generator().manual_seed(step)
    written: list[list[Writing]] = []
    for sample in samples:
        rows, columns = CODES.get(modality, (4, 1))
        rows, (start, count) = rows + extra, model.vocabulary.range_of(modality)
        ids = torch.randint(start, start + count, (rows * columns,), generator=generator)
        hidden = (torch.rand(len(ids), generator=generator) < 0.5).numpy()
        hidden[step % len(ids)] = True
        target = Target(modality, ids, (rows, columns), prompt(modality, "en"))
        members = frozenset(sample.media) - {modality}
        hidden_T = None if modality is Modality.TEXT else hidden
        written.append([Writing(target, members, hidden_T=hidden_T)])
    fused = [frozenset(s.media) if len(s.media) > 1 else None for s in samples]
    return assemble(samples, fused, written=written, summaries=True)


def trunk_of(model: TrimodalModel, batch: Batch) -> torch.Tensor:
    assert batch.views is not None
    return model.trunk(model.enter(model.observe(batch.media), batch.views), batch.views.tokens)


@pytest.mark.parametrize("modality", list(Modality))
@torch.no_grad()
def test_nothing_observed_depends_on_a_target(
    lively: TrimodalModel, conditions: list[Sample], modality: Modality
) -> None:
    """Other ids behind other masks: bit by bit the same embeddings, observed tokens and prompts."""
    first, second = (asking(lively, conditions, modality, step) for step in (0, 1))
    assert first.views is not None
    assert second.views is not None
    assert not torch.equal(first.views.direct_T, second.views.direct_T)
    embedded = [lively(**batch.inputs()).z_NSE for batch in (first, second)]
    assert torch.equal(*embedded)
    outputs = [trunk_of(lively, batch) for batch in (first, second)]
    tokens = first.views.tokens
    direct = first.views.source_T - sum(m.tokens.num_tokens for m in first.media.values())
    is_code = (direct >= 0) & (tokens.positions_T2.sum(1) > 0)
    assert torch.equal(outputs[0][~is_code], outputs[1][~is_code])
    assert not torch.equal(outputs[0][is_code], outputs[1][is_code])
    prompts = (tokens.route_T == int(Route.TARGET)) & ~is_code
    assert int(prompts.sum()) == 2 * len(conditions)


@pytest.mark.parametrize("modality", [Modality.VISION, Modality.SPEECH])
@torch.no_grad()
def test_nothing_observed_depends_on_the_number_of_codes(
    lively: TrimodalModel, conditions: list[Sample], modality: Modality
) -> None:
    short, long = (asking(lively, conditions, modality, 0, extra) for extra in (0, 7))
    outputs = [lively(**batch.inputs()) for batch in (short, long)]
    assert_close(outputs[0].z_NSE, outputs[1].z_NSE, "fp64")
    if modality is Modality.SPEECH:
        lengths = [output.predictions["length_speech"] for output in outputs]
        assert_close(lengths[0], lengths[1], "fp64")
        assert float(lengths[0].std(0).max()) > 1e-3, "it depends on what is observed"


@torch.no_grad()
def test_a_text_is_read_left_to_right(lively: TrimodalModel, conditions: list[Sample]) -> None:
    """Another k-th piece changes the logits behind it, and not one bit of those before."""
    for k in range(4):
        batches = [asking(lively, conditions[:1], Modality.TEXT, 0) for _ in range(2)]
        views = batches[1].views
        assert views is not None
        at = len(views.direct_T) - 4 + k
        views.direct_T[at] += 1
        answers = [lively(**b.inputs()).predictions["causal_text"] for b in batches]
        first, second = (logits_of(answer) for answer in answers)
        assert first.shape[1] == lively.vocabulary.text.size + 1
        assert torch.equal(first[: k + 1], second[: k + 1])
        assert (first[k + 1 :] != second[k + 1 :]).any(1).all()


@torch.no_grad()
def test_codes_see_each_other_and_the_condition(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    for modality in CODES:
        name = f"target_{modality.name.lower()}"
        first = asking(lively, conditions[:1], modality, 0)
        changed = asking(lively, conditions[:1], modality, 0)
        other = asking(lively, conditions[7:8], modality, 0)
        assert changed.views is not None
        known = (changed.views.direct_T > 63).nonzero().flatten()
        changed.views.direct_T[known[-1]] += 1 if changed.views.direct_T[known[-1]] % 2 else -1
        outputs = [lively(**b.inputs()) for b in (first, changed, other)]
        answers = [logits_of(output.predictions[name]) for output in outputs]
        for answer in answers[1:]:
            assert float((answers[0] - answer).abs().max()) > 1e-3


def test_every_new_parameter_gets_a_gradient_from_its_loss(model: TrimodalModel) -> None:
    model.train()
    samples = samples_of(model, {"text": ["a red square"]})
    for modality in Modality:
        model.zero_grad()
        output = model(**asking(model, samples, modality, 0).inputs())
        assert output.predictions is not None
        sums = [logits_of(answer).sum() for answer in output.predictions.values()]
        torch.stack(sums).sum().backward()
        assert model.table.grad is not None
        assert model.table.grad[int(Special.NOTHING)].any() == (modality is Modality.TEXT)
        assert model.table.grad[int(Special.ENGLISH)].any()
        assert model.prediction_head.transform.weight.grad is not None
        used = model.prediction_head.length.weight.grad is not None
        assert used == (modality is Modality.SPEECH)


def test_what_writes_to_the_residual_stream_begins_smaller() -> None:
    """By the depth of its stack (GPT-2); lengths begin near those of words."""
    model = tiny_model()
    block = cast(Block, model.trunk.blocks[0])
    for writer in (block.attention.o_proj, block.mlp.down_proj):
        assert float(writer.weight.std()) == pytest.approx(model.trunk.output_scale(), rel=0.2)
    assert float(block.attention.q_proj.weight.std()) == pytest.approx(0.02, rel=0.2)
    assert model.prediction_head.length.bias.tolist() == [3.0, 3.0]
