from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trimodal.training.parts import WHOLE, Part, Parts, stem_of

ROWS = torch.arange(14.0).view(7, 2)
CUTS = {1: [7], 2: [4, 3], 3: [3, 3, 1], 4: [2, 2, 2, 1], 9: [1] * 7 + [0, 0]}


def written(folder: Path, count: int) -> Parts:
    files = []
    for rank, rows in enumerate(ROWS.split(CUTS[count])):
        files.append(folder / Part(rank, count).file("model"))
        scalar = {} if rank else {"s": torch.tensor(3.0)}
        save_file({"w": rows.contiguous(), **scalar}, files[-1])
    return Parts(files[::-1])


@pytest.mark.parametrize("count", CUTS)
def test_parts_are_one_tensor(tmp_path: Path, count: int) -> None:
    parts = written(tmp_path, count)
    assert parts.keys() == {"s", "w"}
    assert len(parts) == 2
    assert torch.equal(parts["w"], ROWS)
    assert float(parts["s"]) == 3.0


@pytest.mark.parametrize("count", CUTS)
def test_any_rows_are_read_whatever_the_cuts(tmp_path: Path, count: int) -> None:
    parts = written(tmp_path, count)
    for start in range(8):
        for stop in range(start, 8):
            found = parts.rows("w", start, stop)
            assert found.shape == (stop - start, 2)
            assert torch.equal(found, ROWS[start:stop])


@pytest.mark.parametrize("part", [WHOLE, Part(0, 2), Part(11, 12)])
def test_the_stem_of_a_file_is_what_it_was_named_for(part: Part) -> None:
    assert stem_of(Path("a") / part.file("model")) == "model"
    assert stem_of(Path(part.file("ema-of-model"))) == "ema-of-model"
