import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.config import SpeechInputConfig
from trimodal.data import Row, read_manifest
from trimodal.errors import ConfigError, DataError
from trimodal.evaluation.judge_training import measure_judges
from trimodal.evaluation.judges import Input, Judges, JudgesConfig
from trimodal.evaluation.survival import Survival
from trimodal.storage import Source
from trimodal.testing import COLOURS, assert_close, write_tiny_manifest


def _judges(labels: tuple[str, ...] = tuple(sorted(COLOURS)), *inputs: Input) -> Judges:
    """Of random weights."""
    speech = SpeechInputConfig(num_mels=20)
    return Judges(
        JudgesConfig(labels=labels, inputs=inputs or ("image", "speech"), speech_input=speech)
    )


def _changed(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(rows)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return read_manifest(path)


def _paths(rows: list[Row], name: Input) -> list[Source]:
    paths = [row.image if name == "image" else row.speech for row in rows]
    return [path for path in paths if path is not None]


@pytest.mark.parametrize("name", ["image", "speech"])
def test_what_is_not_changed_is_kept(tmp_path: Path, name: Input) -> None:
    judges, manifest = _judges(), write_tiny_manifest(tmp_path, rows=8)
    rows = read_manifest(manifest)
    paths = _paths(rows, name)
    survival = Survival(judges, name, rows, paths)
    assert survival.chosen(paths) == [file.path for file in survival.files]
    if name == "image":
        pictures = [judges.vision.decode(path).permute(1, 2, 0).numpy() for path in paths]
        judged = judges.judge_images(survival.chosen(pictures))
    else:
        waveforms = [(judges.speech.decode(path).numpy(), 16_000) for path in paths]
        judged = judges.judge_speech(survival.chosen(waveforms))
    found = survival.measure({"": judged, "otherwise": judged})
    expected = measure_judges(judges, manifest)[name]["accuracy"]
    assert found == {
        "judged_originals": expected,
        "judged": expected,
        "kept": 0.0,
        "judged_otherwise": expected,
        "kept_otherwise": 0.0,
    }


def test_what_was_lost_is_counted_in_shares(tmp_path: Path) -> None:
    judges = _judges()
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=8, complete=True))
    survival = Survival(judges, "image", rows, _paths(rows, "image"))
    right_NC = np.eye(4)[[judges.labels.index(str(row.label)) for row in rows]]
    half_NC = np.concatenate([right_NC[:4], np.roll(right_NC[4:], 1, axis=1)])
    none_ND = np.zeros((8, 64))
    found = survival.measure({"": (right_NC, none_ND), "half": (half_NC, none_ND)})
    assert (found["judged"], found["judged_half"]) == (1.0, 0.5)
    assert_close(found["kept"] - found["kept_half"], 0.5, "fp32")
    assert found["kept"] == 1 - found["judged_originals"]


def test_each_file_with_a_known_label_counts_once(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        del rows[0]["label"]
        rows[2]["label"] = "unheard-of"
        (tmp_path / "link.png").symlink_to("train-3.png")
        rows[4] |= {"image": "link.png", "label": rows[3]["label"]}

    rows = _changed(write_tiny_manifest(tmp_path, rows=6, complete=True), change)
    paths = [tmp_path / f"train-{i}.png" for i in (5, 3, 2, 1, 0)]
    survival = Survival(_judges(), "image", rows, paths)
    assert [file.path.name for file in survival.files] == [f"train-{i}.png" for i in (1, 3, 5)]
    assert survival.chosen([5, 3, 2, 1, 0]) == [1, 3, 5]

    def relabel(rows: list[dict[str, Any]]) -> None:
        rows[4]["label"] = rows[1]["label"]

    rows = _changed(tmp_path / "train.jsonl", relabel)
    with pytest.raises(DataError, match=r"^.*train\.jsonl:5: .*train-3\.png has the label"):
        Survival(_judges(), "image", rows, paths)


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=4, complete=True))
    with pytest.raises(ConfigError, match=r"^--judges: these judges know no speech, only image$"):
        Survival(_judges(("blue", "red"), "image"), "speech", rows, _paths(rows, "speech"))
    message = r"^no row of the manifests has image and a label that these judges know$"
    with pytest.raises(DataError, match=message):
        Survival(_judges(("a", "b")), "image", rows, _paths(rows, "image"))
