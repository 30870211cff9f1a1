from typing import Any

import pytest
import torch

from trimodal.bench import losses
from trimodal.bench.losses import LossSizes, contrast_ways, loss_rows, vocabulary_ways
from trimodal.errors import NumericError

CPU = torch.device("cpu")
SIZES = LossSizes(samples=50, embedding=16, tokens=60, width=8, vocabulary=40)


@pytest.mark.usefixtures("uncompiled")
def test_every_loss_has_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK", 16)
    rows = loss_rows(CPU, rounds=1, sizes=SIZES)
    assert [row.name.rpartition("against ")[2] for row in rows][:2] == [
        "eager, matrix kept",
        "compiled, matrix kept",
    ]
    assert {row.unit for row in rows} == {"ms"}
    assert not [row for row in rows if row.gate], "gates are promised on a GPU"


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("make", [contrast_ways, vocabulary_ways])
def test_what_computes_something_else_is_not_timed(make: Any) -> None:
    ways = make(CPU, torch.float32, SIZES)
    right = ways["ours"]
    ways["wrong"] = lambda: tuple(1.01 * x for x in right())
    with pytest.raises(NumericError, match=r"gradients by wrong and by ours differ by 9\.9e-03"):
        losses._rows("it", ways, torch.float32, {}, 1, CPU, None)


def test_a_peer_that_is_not_installed_is_left_out() -> None:
    assert losses._imported("no_such_package.at_all", "loss") is None
    assert losses._imported("torch.nn.functional", "cross_entropy") is not None
