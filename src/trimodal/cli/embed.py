"""`trimodal embed`: the vectors of a manifest's rows.

trimodal embed runs/demo/model --data data/digits/test.jsonl --out vectors.npz
"""

import argparse
from pathlib import Path
from typing import Any

from trimodal.cli import (
    Command,
    add_device,
    add_token_budget,
    add_weights,
    add_workers,
    check_output,
    workers_of,
)
from trimodal.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
    parser.add_argument("--data", metavar="MANIFEST", required=True, help="the rows to embed")
    parser.add_argument(
        "--out",
        metavar="X.npz",
        required=True,
        help="arrays id, image, text, speech and fused; NaN where a row lacks a modality",
    )
    add_device(parser)
    add_weights(parser)
    add_token_budget(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> int:
    """Embed every row and write the arrays in one step."""
    if not options.out.endswith(".npz"):
        raise ConfigError(f"--out: {options.out} must end in .npz")
    check_output(options.out, (options.model, options.data))

    from functools import partial

    import numpy as np

    from trimodal.data import read_manifest
    from trimodal.evaluation import embed_rows, load_model
    from trimodal.evaluation.embedding import embed_with
    from trimodal.storage import check_writable, replacing

    check_writable(options.out)
    load = partial(load_model, options.model, options.weights, options.device)
    rows, workers = read_manifest(options.data), workers_of(options)
    chosen: dict[str, Any] = {"token_budget": options.token_budget, "progress": True}
    if workers is None:
        vectors = embed_rows(load(), rows, **chosen)
    else:
        vectors = embed_with(workers, load, rows, **chosen)
    arrays: dict[str, Any] = {"id": np.array([row.id for row in rows]), **vectors}
    with replacing(options.out) as file:
        np.savez(file, **arrays)
    print(f"{options.out}: {len(rows)} rows of {vectors['fused'].shape[1]} numbers")
    return 0


COMMAND = Command("embed", "write the vectors of a manifest's rows", configure, run)
