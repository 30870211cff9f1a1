import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimodal.errors import StorageError
from trimodal.testing import assert_close
from trimodal.tokenizers import (
    SpeechTokenizer,
    VisionTokenizer,
    Vocoder,
    fingerprint,
    load_speech_tokenizer,
    load_vision_tokenizer,
    load_vocoder,
)
from trimodal.tokenizers.stored import stored_kind


def test_each_comes_back_as_it_was(
    tmp_path: Path, vision: VisionTokenizer, speech: SpeechTokenizer, vocoder: Vocoder
) -> None:
    loaders = (load_vision_tokenizer, load_speech_tokenizer, load_vocoder)
    for part, load in zip((vision, speech, vocoder), loaders, strict=True):
        folder = tmp_path / "new" / part.kind
        part.save(folder)
        assert sorted(path.name for path in folder.iterdir()) == [
            "config.json",
            "model.safetensors",
        ]
        assert json.loads((folder / "config.json").read_text())["kind"] == part.kind
        assert stored_kind(folder) == part.kind
        again = load(folder)
        assert again.config == part.config
        assert not again.training
        assert fingerprint(again) == fingerprint(part)
        for name, weight in part.state_dict().items():
            assert_close(again.state_dict()[name], weight, "exact")


def test_fingerprint_is_of_weights_and_configuration(vision: VisionTokenizer) -> None:
    before = fingerprint(vision)
    assert len(before) == 64
    assert fingerprint(vision) == before
    with torch.no_grad():
        next(vision.parameters()).flatten()[0] += 1e-3
    assert fingerprint(vision) != before


def _wrong_kind(folder: Path) -> str:
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"kind": "speech_tokenizer"}))
    return "holds a speech tokenizer, not a vision tokenizer"


def _no_kind(folder: Path) -> str:
    (folder / "config.json").write_text('{"levels": [3]}')
    return "holds something else, not a vision tokenizer"


def _a_list(folder: Path) -> str:
    (folder / "config.json").write_text("[1]")
    return "its config.json holds no keys"


def _no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "is not a vision tokenizer: it has no readable config.json"


def _unknown_key(folder: Path) -> str:
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"depht": 1}))
    return "config.json: depht: no such key, did you mean depth?"


def _other_shape(folder: Path) -> str:
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"width": 24}))
    return "does not fit config.json: .* is "


def _huge(folder: Path) -> str:
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"width": 8192, "depth": 100}))
    return "does not fit config.json: .* is "


def _no_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "is not a vision tokenizer: it has no model.safetensors"


def _cut(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    return "model.safetensors is damaged"


def _missing_weight(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.head.bias"]
    save_file(weights, folder / "model.safetensors")
    return r"encoder.head.bias is missing, expected \[3\]"


def _strange_weight(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"more": torch.zeros(1)}, folder / "model.safetensors")
    return r"more is \[1\], expected none"


def _whole_numbers(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.head.bias"] = torch.zeros(3, dtype=torch.int64)
    save_file(weights, folder / "model.safetensors")
    return "has values of type I64, not floats"


DAMAGES = [
    _wrong_kind,
    _no_kind,
    _a_list,
    _no_config,
    _unknown_key,
    _other_shape,
    _huge,
    _no_weights,
    _cut,
    _missing_weight,
    _strange_weight,
    _whole_numbers,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_missing_damaged_or_another_is_refused(
    tmp_path: Path, vision: VisionTokenizer, damage: Callable[[Path], str]
) -> None:
    vision.save(tmp_path)
    with pytest.raises(StorageError, match=damage(tmp_path)):
        load_vision_tokenizer(tmp_path)


def test_a_folder_of_something_else_has_no_kind(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a tokenizer or vocoder: it has no readable"):
        stored_kind(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "table"}')
    with pytest.raises(StorageError, match="names no kind"):
        stored_kind(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, vision: VisionTokenizer) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/x cannot be written"):
        vision.save(tmp_path / "file" / "x")
