"""What each objective is good for: the same run with one of them left out at a time.

python benchmarks/ablations.py configs/demo.yaml --judges runs/demo/judges --steps 300
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trimodal.config import ObjectivesConfig, load_config
from trimodal.errors import ConfigError, TrimodalError
from trimodal.evaluation.table import grid, percent

RETRIEVAL = ("image->text", "speech->text", "speech->image", "speech+text->image")
ASKS = {"target": ("target", "length")}
"""An objective without whose views another has none."""


def variants(objectives: ObjectivesConfig) -> dict[str, list[str]]:
    """By name the overrides of each run: everything, then without one objective."""
    present = [f.name for f in fields(objectives) if getattr(objectives, f.name) is not None]
    found: dict[str, list[str]] = {"everything": []}
    for name in present:
        dropped = [other for other in ASKS.get(name, (name,)) if other in present]
        if len(dropped) < len(present):
            found[f"without {name}"] = [f"objectives.{other}=null" for other in dropped]
    return found


def run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train and measure every variant that has no results yet."""
    config = load_config(options.config)
    test = config.data.test or config.data.validation
    if test is None:
        raise ConfigError(f"{options.config}: names neither data.test nor data.validation")
    results = {}
    for name, overrides in variants(config.objectives).items():
        folder = options.out / name.replace(" ", "_")
        path = folder / "results.json"
        if not path.exists():
            print(f"ablations: {name}", file=sys.stderr, flush=True)
            settings = [f"run_dir={folder}", f"training.max_steps={options.steps}"]
            settings += ["training.trackers=[]", "training.validate_every=0"]
            _call("-m", "trimodal.train", str(options.config), *settings, *overrides)
            judged = ["--judges", str(options.judges)] if options.judges else []
            model = str(folder / "model")
            _call("-m", "trimodal", "eval", model, "--data", test, "--json", str(path), *judged)
        results[name] = json.loads(path.read_text(encoding="utf-8"))
    return results


def _call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line a score, a column a variant; in percent."""
    names = list(results)
    lines = [
        [f"R@1 {direction}", *(_retrieved(results[name], direction) for name in names)]
        for direction in RETRIEVAL
    ]
    generated = {d for tree in results.values() for d in tree.get("generation", NONE)["directions"]}
    for direction in sorted(generated):
        cells = [_generated(results[name], direction) for name in names]
        lines.append([f"generated {direction}", *cells])
    return grid(["score", *names], lines)


NONE: dict[str, Any] = {"directions": {}}


def _retrieved(tree: dict[str, Any], direction: str) -> str:
    return percent(tree["retrieval"].get(direction, {}).get("R@1"))


def _generated(tree: dict[str, Any], direction: str) -> str:
    found = tree.get("generation", NONE)["directions"].get(direction, {})
    return percent(found.get("exact", found.get("accuracy")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; runs that are there already are not made again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a run's configuration, with test data")
    parser.add_argument("--judges", type=Path, help="see `trimodal judge train`")
    parser.add_argument("--steps", type=int, default=300, help="of each run (default: 300)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="their folder")
    try:
        print(table(run(parser.parse_args(arguments))))
    except TrimodalError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return error.exit_code
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
