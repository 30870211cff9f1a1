"""Every shipped configuration compiles for GPUs that are not here, and fits them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimodal_kernels.aot import Resources, format_resources

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_fit_and_use_the_matrix_units(arch: int, tmp_path: Path) -> None:
    """In a process of its own, as here kernels are interpreted, and in one, whose start costs more
    than a kernel."""
    out = tmp_path / "rows.json"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    made = subprocess.run(
        [sys.executable, "-m", "trimodal_kernels.aot", "--arch", str(arch), "--json", str(out)],
        env={**environment, "PYTHONPATH": str(KERNELS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    rows = json.loads(out.read_text())
    for only in (
        *("attention.forward", "attention.island", "attention.queries", "attention.keys"),
        *("contrastive.softmax_tiles", "contrastive.softmax_gradient", "contrastive.softmax_merge"),
        *("contrastive.sigmoid_tiles", "contrastive.sigmoid_gradient"),
        *("gated", "linear_cross_entropy", "nearest"),
    ):
        assert any(row["name"].startswith(only) for row in rows), only
    for row in rows:
        assert row["faults"] == [], row["name"]
        assert row["spilled"] == 0, row["name"]
        assert row["arch"] == arch


def test_a_table_says_what_is_wrong() -> None:
    rows = [
        Resources("good", 90, 128, 0, 40_960, 8),
        Resources("bad", 80, 255, 64, 40_960, 0, ("spills 64 bytes", "uses no matrix instruction")),
    ]
    good, bad = format_resources(rows).splitlines()[1:]
    assert good.split() == ["good", "sm_90", "128", "0", "40.0", "8"]
    assert bad.endswith("spills 64 bytes  uses no matrix instruction")


def test_a_name_that_no_configuration_has() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    made = subprocess.run(
        [sys.executable, "-m", "trimodal_kernels.aot", "--only", "nothing"],
        env={**environment, "PYTHONPATH": str(KERNELS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 2
    assert "no configuration's name begins with nothing" in made.stderr
