"""`trimodal embed`: the vectors of a manifest's rows.

trimodal embed runs/demo/model --data data/digits/test.jsonl --out vectors.npz
"""

import argparse
from pathlib import Path
from typing import Any

from trimodal.cli import Command, add_token_budget, check_output
from trimodal.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
    parser.add_argument(
        "--data", metavar="MANIFEST", type=Path, required=True, help="the rows to embed"
    )
    parser.add_argument(
        "--out",
        metavar="X.npz",
        type=Path,
        required=True,
        help="arrays id, image, text, speech and fused; NaN where a row lacks a modality",
    )
    add_token_budget(parser)


def run(options: argparse.Namespace) -> int:
    """Embed every row and write the arrays in one step."""
    if options.out.suffix != ".npz":
        raise ConfigError(f"--out: {options.out} must end in .npz")
    check_output(options.out, (options.model, options.data))

    import io

    import numpy as np

    from trimodal.data import read_manifest
    from trimodal.evaluation import embed_rows, load_model
    from trimodal.evaluation.output import check_writable, write_whole

    check_writable(options.out)
    rows = read_manifest(options.data)
    vectors = embed_rows(
        load_model(options.model), rows, token_budget=options.token_budget, progress=True
    )
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"id": np.array([row.id for row in rows]), **vectors}
    np.savez(buffer, **arrays)
    write_whole(options.out, buffer.getvalue())
    print(f"{options.out}: {len(rows)} rows of {vectors['fused'].shape[1]} numbers")
    return 0


COMMAND = Command("embed", "write the vectors of a manifest's rows", configure, run)
