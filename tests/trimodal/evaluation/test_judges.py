import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trimodal.config import SpeechInputConfig
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.evaluation.judges import (
    Judges,
    JudgesConfig,
    MediaFile,
    fingerprint,
    judge_files,
    load_judges,
)
from trimodal.streams import generator
from trimodal.testing import assert_close, write_tiny_manifest

LABELS = ("blue", "green", "red")


def _judges() -> Judges:
    """Of random weights, with statistics as a trained one has them."""
    judges = Judges(JudgesConfig(labels=LABELS, speech_input=SpeechInputConfig(num_mels=20)))
    for name, value in judges.models.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.3)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return judges


def _utterances() -> list[tuple[np.ndarray, int]]:
    lengths = ((30, 16_000), (16_000, 16_000), (5_000, 8_000), (7_001, 22_050), (1_600, 16_000))
    return [
        (generator("utterance", n).normal(0, 0.1, n).astype(np.float32), rate)
        for n, rate in lengths
    ]


def _pictures() -> list[np.ndarray]:
    sizes = ((1, 1), (8, 8), (64, 20), (33, 200))
    return [
        generator("picture", h, w).integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes
    ]


def test_speech_is_judged_as_if_alone() -> None:
    judges, utterances = _judges(), _utterances()
    probability_NC, features_ND = judges.judge_speech(utterances)
    assert probability_NC.shape == (5, 3)
    assert features_ND.shape == (5, 64)
    assert_close(probability_NC.sum(axis=1), np.ones(5), "fp32")
    assert len({row.tobytes() for row in features_ND}) == 5
    for i, utterance in enumerate(utterances):
        alone = judges.judge_speech([utterance])
        assert_close(alone[0][0], probability_NC[i], "packed-vs-alone-fp32")
        assert_close(alone[1][0], features_ND[i], "packed-vs-alone-fp32")


def test_loudness_does_not_change_the_verdict() -> None:
    judges, (samples, rate) = _judges(), _utterances()[1]
    loud, quiet = judges.judge_speech([(samples, rate), (0.25 * samples, rate)])[0]
    assert_close(loud, quiet, "packed-vs-alone-fp32")


def test_pictures_of_any_size_keep_their_places() -> None:
    judges, pictures = _judges(), _pictures()
    probability_NC, features_ND = judges.judge_images(pictures)
    assert probability_NC.shape == (4, 3)
    for i, picture in enumerate(pictures):
        alone = judges.judge_images([picture])
        assert_close(alone[0][0], probability_NC[i], "packed-vs-alone-fp32")
        assert_close(alone[1][0], features_ND[i], "packed-vs-alone-fp32")
    twice = judges.judge_images(pictures[1:2] * 70)[0]
    assert_close(twice, np.repeat(probability_NC[1:2], 70, axis=0), "packed-vs-alone-fp32")


def test_nothing_is_judged_as_nothing_and_no_samples_as_silence() -> None:
    judges = _judges()
    for probability_NC, features_ND in (judges.judge_images([]), judges.judge_speech([])):
        assert probability_NC.shape == (0, 3)
        assert features_ND.shape == (0, 64)
    empty, silent = (np.zeros(n, np.float32) for n in (0, 200))
    found = judges.judge_speech([(empty, 16_000), (silent, 16_000)])[0]
    assert_close(found[0], found[1], "packed-vs-alone-fp32")


def test_files_are_judged_like_their_contents(tmp_path: Path) -> None:
    judges = _judges()
    manifest = write_tiny_manifest(tmp_path, rows=3, complete=True)
    for name, suffix in (("image", "png"), ("speech", "wav")):
        files = [MediaFile(tmp_path / f"train-{i}.{suffix}", f"{manifest}:{i}") for i in range(3)]
        probability_NC, _ = judge_files(judges, name, files)  # pyright: ignore[reportArgumentType]
        assert probability_NC.shape == (3, 3)
        if name == "image":
            pictures = [judges.vision.decode(f.path).permute(1, 2, 0).numpy() for f in files]
            expected = judges.judge_images(pictures)[0]
        else:
            waveforms = [judges.speech.decode(f.path).numpy() for f in files]
            expected = judges.judge_speech([(w, 16_000) for w in waveforms])[0]
        assert_close(probability_NC, expected, "packed-vs-alone-fp32")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^m\.jsonl:7: "):
        judge_files(judges, "image", [MediaFile(tmp_path / "broken.png", "m.jsonl:7")])


def test_saved_and_loaded_judges_say_the_same(tmp_path: Path) -> None:
    judges = _judges()
    judges.save(tmp_path / "judges")
    loaded = load_judges(tmp_path / "judges")
    assert loaded.config == judges.config
    assert loaded.labels == LABELS
    for before, after in zip(
        judges.judge_images(_pictures()), loaded.judge_images(_pictures()), strict=True
    ):
        assert_close(after, before, "exact")
    for before, after in zip(
        judges.judge_speech(_utterances()), loaded.judge_speech(_utterances()), strict=True
    ):
        assert_close(after, before, "exact")


def test_one_judge_alone(tmp_path: Path) -> None:
    judges = Judges(JudgesConfig(labels=LABELS, inputs=("speech",)))
    judges.save(tmp_path)
    loaded = load_judges(tmp_path)
    assert list(loaded.models) == ["speech"]
    with pytest.raises(ConfigError, match="these judges know no image, only speech"):
        loaded.judge_images(_pictures())


@pytest.mark.parametrize(
    ("labels", "inputs"),
    [(("a",), ("image",)), (("b", "a"), ("image",)), (("a", "a"), ("image",)), (("a", "b"), ())],
)
def test_what_cannot_be_judged_is_refused(labels: tuple[str, ...], inputs: tuple[()]) -> None:
    with pytest.raises(ConfigError, match=r"labels|inputs"):
        JudgesConfig(labels=labels, inputs=inputs)


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"kind": "vocoder"}')


def _with(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tree = json.loads((folder / "config.json").read_bytes())
        (folder / "config.json").write_text(json.dumps({**tree, key: value}))

    return change


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def _missing_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.popitem()
    save_file(weights, folder / "model.safetensors")


def _added_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors") | {"more": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_config, "it has no readable config.json"),
        (_of_another_kind, "holds something else than judges"),
        (_with("colour", 1), "config.json: colour: no such key"),
        (_with("labels", ["b", "a"]), "config.json: labels: must be two or more"),
        (_with("side", 10**9), r"config.json: side: .* is not in \[8, 512\]"),
        (_with("features", 32), "does not fit config.json"),
        (_with("inputs", ["image"]), "does not fit config.json"),
        (_without_weights, "it has no model.safetensors"),
        (_cut_weights, "is damaged"),
        (_missing_weight, "does not fit config.json"),
        (_added_weight, "does not fit config.json: more"),
    ],
)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    _judges().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(StorageError, match=message):
        load_judges(tmp_path)


def test_a_fingerprint_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"abc")
    # FIPS 180-4, example of SHA-256
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(tmp_path / "m") == expected
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint(tmp_path / "nowhere")
