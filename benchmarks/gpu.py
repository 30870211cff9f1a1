"""Tests, benchmarks and a short training run on one GPU, and a dated report of them.

python benchmarks/gpu.py --out benchmarks/reports

It works from a source tree, without installing anything, where PyTorch, Triton, transformers,
accelerate, sentencepiece and pytest are. It exits with 1 where a test fails or a gate is missed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [str(ROOT / name) for name in ("src", "kernels", "serving")]
CONFIGS = ("configs/base.yaml", "configs/large.yaml")


def tests() -> tuple[bool, str]:
    """Whether all tests that need a GPU pass, and the last line that they print."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/kernels"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing"]
    if done.returncode:
        print("\n".join(lines[-60:]), file=sys.stderr)
    return done.returncode == 0, lines[-1].strip("= ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="of each row (default: 20)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/reports", help="a folder")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("gpu: error: PyTorch finds no GPU here", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    from trimodal.bench import Row, format_rows, gpu_rows, tried
    from trimodal.bench.curves import curves_row
    from trimodal.bench.report import gpu_report, machine
    from trimodal.config import load_config

    print("gpu: tests", flush=True)
    passed, line = tests()
    print(f"gpu: {line}\ngpu: benchmarks", flush=True)
    configs = [load_config(ROOT / path) for path in CONFIGS]
    where = machine()
    name = re.sub(r"\W+", "_", f"gpu_{where.gpu}_{where.day:%Y%m}").lower()
    rows: list[Row] = []
    curves: dict[str, list[float]] = {}

    def keep(found: list[Row]) -> None:
        """Write down what is there so far, for what comes next may end the process."""
        rows.extend(found)
        page = gpu_report(where, line, rows, curves)
        (options.out / f"{name}.md").write_text(page, encoding="utf-8")
        tree = [{**row._asdict(), "pass": row.passes} for row in rows]
        (options.out / f"{name}.json").write_text(json.dumps({"device": where.gpu, "rows": tree}))
        print(format_rows(found), flush=True)

    def learnt() -> list[Row]:
        row, both = curves_row(configs[0], torch.device("cuda"))
        curves.update(both)
        return [row]

    for group in gpu_rows(options.rounds, configs):
        keep(group)
    print("gpu: training with and without kernels", flush=True)
    keep(tried("training with and without kernels", learnt))
    print(f"gpu: {options.out / name}.md")
    return int(not (passed and all(row.passes for row in rows)))


if __name__ == "__main__":
    sys.path[:0] = SOURCES
    sys.exit(main())
