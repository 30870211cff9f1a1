"""`trimodal eval`: measure a model on a manifest.

trimodal eval runs/demo/model --data data/digits/test.jsonl --json results.json
"""

import argparse
from pathlib import Path

from trimodal.cli import Command, add_device, add_token_budget, add_weights, check_output


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
    parser.add_argument("--data", metavar="MANIFEST", required=True, help="what to measure on")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the results here")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        help='class prompts, {"LABEL": {"en": ["TEXT", ...]}}; '
        "else prompts.json beside the manifest, else the texts of each label's rows",
    )
    parser.add_argument(
        "--judges",
        metavar="DIR",
        type=Path,
        help="judges of generated pictures and speech, see `trimodal judge train`",
    )
    parser.add_argument(
        "--no-generation",
        action="store_true",
        help="leave out what the model generates, which takes the longest",
    )
    parser.add_argument(
        "--by",
        metavar="KEY[,KEY]",
        type=lambda value: [key for key in value.split(",") if key],
        default=[],
        help="also tell how right generation is by these keys of the manifest, e.g. speaker",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of generated outputs (default: %(default)s)"
    )
    add_device(parser)
    add_weights(parser)
    add_token_budget(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table and write the JSON."""
    from trimodal.data.manifest import manifest_of
    from trimodal.evaluation import (
        evaluate,
        format_generation,
        format_resynthesis,
        format_table,
        load_model,
    )
    from trimodal.evaluation.zero_shot import FILE
    from trimodal.storage import beside, check_writable, write_json

    if options.json:
        prompts = options.prompts or beside(manifest_of(options.data), FILE)
        judges = [options.judges] if options.judges else []
        check_output(options.json, (options.model, options.data, prompts, *judges))
        check_writable(options.json)
    results = evaluate(
        load_model(options.model, options.weights, options.device),
        options.data,
        prompts=options.prompts,
        judges=options.judges,
        generation=not options.no_generation,
        by=options.by,
        seed=options.seed,
        token_budget=options.token_budget,
        progress=True,
    )
    if options.json:
        write_json(options.json, results)
    print(format_table(results))
    if "generation" in results:
        print(f"\n{format_generation(results['generation'])}")
    if results.get("resynthesis"):
        print(f"\n{format_resynthesis(results['resynthesis'])}")
    return 0


COMMAND = Command("eval", "measure a model on a manifest", configure, run)
