import errno
import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from trimodal import storage
from trimodal.errors import StorageError
from trimodal.testing import assert_close
from trimodal.training import checkpoint
from trimodal.training.checkpoint import (
    load_newest,
    load_step,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from trimodal.training.parts import Part

TENSORS = {"model": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(())}}


def write(folder: Path, step: int, keep: int = 9) -> Path:
    return save(folder, step, TENSORS, {"tokens": step * 10}, keep)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, 3)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state["tokens"]) == (3, 30)
    assert torch.equal(loaded.tensors["model"]["a"], TENSORS["model"]["a"])


def test_nothing_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "missing") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def damage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("later", "keep"), [((400,), 1), ((400, 600), 1), ((400, 600), 2)])
def test_damaged_ones_of_later_steps_do_not_outlive_a_new_one(
    tmp_path: Path, later: tuple[int, ...], keep: int
) -> None:
    write(tmp_path, 200)
    for step in later:
        damage(write(tmp_path, step))
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 200
    write(tmp_path, 300, keep)
    assert names(tmp_path) == ["step-00000200", "step-00000300"][-keep:]
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 300


def test_a_step_of_nine_digits_is_found(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        write(tmp_path, step, keep=1)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 100_000_000
    assert names(tmp_path) == ["step-100000000"]


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_what_only_has_the_name_of_a_checkpoint_is_left(tmp_path: Path, kind: str) -> None:
    folder, other = tmp_path / "checkpoints", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for name in ("step-00000001", ".tmp-00000001-1", "step-00000002"):
        if kind == "file":
            (folder / name).write_text("")
        else:
            (folder / name).symlink_to(other if kind == "link" else tmp_path / "nowhere")
    assert load_newest(folder) is None
    write(folder, 2, keep=1)
    assert names(folder) == ["step-00000001", "step-00000002"]
    assert other.is_dir()
    loaded = load_newest(folder)
    assert loaded is not None
    assert loaded.step == 2


def test_a_manifest_nested_deeply_is_a_damaged_one(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (write(tmp_path, 2) / "manifest.json").write_text("[" * 100_000)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1


@pytest.mark.parametrize(
    "state", ["[]", "{}", '{"tokens": "ten"}', "{", "[" * 100_000, b"\xff"], ids=range(6)
)
def test_a_state_that_no_run_writes_is_a_damaged_one(
    tmp_path: Path, state: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hash may be right all the same."""
    write(tmp_path, 1)
    path = write(tmp_path, 2) / "state.json"
    path.write_bytes(state if isinstance(state, bytes) else state.encode())
    manifest = json.loads(path.with_name("manifest.json").read_text())
    manifest["files"]["state.json"] = checkpoint._entry(path)
    path.with_name("manifest.json").write_text(json.dumps(manifest))
    needed = {"tokens": int}
    loaded = load_newest(tmp_path, needed)
    assert loaded is not None
    assert loaded.step == 1
    fault = "state.json is not what a run writes"
    assert capsys.readouterr().err == f"trimodal: checkpoint {path.parent} is not used: {fault}\n"
    with pytest.raises(StorageError, match=f"step-00000002 is damaged: {fault}"):
        load_step(tmp_path, 2, needed)


def test_a_full_disk_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)

    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match=r"step-00000002 cannot be written: .* No space left"):
        write(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1


def test_an_interrupted_write_is_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    partial = tmp_path / ".tmp-00000002-1"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    write(tmp_path, 2)
    assert not partial.exists()


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_noticed_and_the_one_before_is_used(tmp_path: Path, seed: int) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    rng = np.random.default_rng(seed)
    files = sorted(folder.iterdir())
    path = files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))
    loaded = load_newest(tmp_path)
    assert loaded is not None
    if loaded.step == 2:  # a flip in white space or a number's spelling of the manifest is harmless
        assert path.name == "manifest.json"
    assert torch.equal(loaded.tensors["model"]["a"], TENSORS["model"]["a"])


@pytest.mark.parametrize("damage", ["missing", "extra", "truncated"])
def test_all_damaged_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path, 1)
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "extra":
        (folder / "more.bin").write_bytes(b"x")
    else:
        weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StorageError, match="every checkpoint"):
        load_newest(tmp_path)


class Failing:
    """The reading of some step's checkpoint, which a disk refuses for a while."""

    def __init__(self, patch: pytest.MonkeyPatch, step: int, times: int) -> None:
        self.left, self.pauses = times, []
        inner = checkpoint._entry

        def entry(path: Path) -> dict[str, Any]:
            if f"step-{step:08d}" in str(path) and self.left:
                self.left -= 1
                raise OSError(errno.EIO, "Input/output error")
            return inner(path)

        patch.setattr(checkpoint, "_entry", entry)
        patch.setattr(storage.time, "sleep", self.pauses.append)


def test_a_disk_that_fails_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    failing = Failing(monkeypatch, 2, len(storage.PAUSES))
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 2
    assert failing.pauses == list(storage.PAUSES)


def test_what_cannot_be_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one in its place would have the next save delete it."""
    for step in (1, 2):
        write(tmp_path, step)
    Failing(monkeypatch, 2, 1000)
    with pytest.raises(StorageError, match=r"step-00000002 cannot be read: Input/output error"):
        load_newest(tmp_path)
    with pytest.raises(StorageError, match=r"step-00000002 cannot be read: Input/output error"):
        load_step(tmp_path, 2)


def test_the_checkpoint_of_a_step_is_found_or_what_is_there_is_said(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    assert load_step(tmp_path, 1).state == {"tokens": 10}
    with pytest.raises(StorageError, match=r"has no checkpoint of step 3; it has: 1, 2$"):
        load_step(tmp_path, 3)
    damage(tmp_path / "step-00000001")
    with pytest.raises(StorageError, match=r"step-00000001 is damaged: model\.safetensors is not"):
        load_step(tmp_path, 1)
    with pytest.raises(StorageError, match=r"it has: none$"):
        load_step(tmp_path / "nothing", 3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file", 1)


def test_the_optimizer_goes_on_as_if_nothing_happened() -> None:
    def made() -> tuple[nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def steps(model: nn.Linear, optimizer: torch.optim.AdamW, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()

    whole, whole_optimizer = made()
    steps(whole, whole_optimizer, 5)
    first, first_optimizer = made()
    steps(first, first_optimizer, 2)
    second, second_optimizer = made()
    second.load_state_dict(first.state_dict())
    steps(second, second_optimizer, 1)
    second.load_state_dict(first.state_dict())
    restore_optimizer(second_optimizer, second, optimizer_tensors(first_optimizer, first))
    steps(second, second_optimizer, 3)
    assert_close(second.weight, whole.weight, "exact")


def test_state_that_the_checkpoint_lacks_is_cleared() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = optimizer_tensors(optimizer, model)
    kept = {name: x.clone() for name, x in saved.items() if name.startswith("weight::")}
    restore_optimizer(optimizer, model, kept)
    assert optimizer_tensors(optimizer, model).keys() == kept.keys()
    optimizer.step()
    assert float(optimizer.state[model.bias]["step"]) == 1, "it began anew"


def write_parts(
    folder: Path, ranks: Iterable[int], count: int = 3, launch: str = "one"
) -> list[Future[Path]]:
    """Write rows of ten from several ranks at once, and what has no rows from the first."""
    rows = torch.arange(10.0).tensor_split(count)
    with ThreadPoolExecutor(count) as pool:
        return [
            pool.submit(
                save,
                folder,
                7,
                {"model": {"w": rows[rank], "s": torch.tensor(float(rank))}},
                {"rank": rank},
                2,
                Part(rank, count, launch),
            )
            for rank in ranks
        ]


def test_several_writers_make_one_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".tmp-00000003-former").mkdir()
    assert {future.result() for future in write_parts(tmp_path, (2, 0, 1))} == {
        tmp_path / "step-00000007"
    }
    assert names(tmp_path) == ["step-00000007"]
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == {"rank": 0}
    assert loaded.tensors["model"]["w"].tolist() == list(range(10))
    assert float(loaded.tensors["model"]["s"]) == 0.0


def test_only_the_first_writer_removes_what_a_killed_launch_left(tmp_path: Path) -> None:
    """Two that did would race for the same files."""
    (tmp_path / ".tmp-00000003-former").mkdir()
    for future in write_parts(tmp_path, (1, 2)):
        future.result()
    assert ".tmp-00000003-former" in names(tmp_path)
    for future in write_parts(tmp_path, (0,)):
        future.result()
    assert names(tmp_path) == ["step-00000007"]


def test_a_writer_that_does_not_come_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.1)
    first, _ = write_parts(tmp_path, (0, 2))
    with pytest.raises(StorageError, match="rank 1 did not write its part"):
        first.result()
    assert load_newest(tmp_path) is None
    for future in write_parts(tmp_path, (0, 1, 2), launch="two"):
        future.result()
    assert load_newest(tmp_path) is not None
    assert names(tmp_path) == ["step-00000007"]
