"""What each objective is good for: the same run with one of them left out at a time.

python benchmarks/ablations.py configs/demo.yaml --judges runs/demo/judges --steps 300
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trimodal.config import ObjectivesConfig, load_config
from trimodal.errors import ConfigError, StorageError, TrimodalError
from trimodal.evaluation.judges import CONFIG_FILE, WEIGHTS_FILE, read_judges_config
from trimodal.evaluation.table import grid, percent
from trimodal.schema import to_dict
from trimodal.storage import read_bytes, write_json

RETRIEVAL = ("image->text", "speech->text", "speech->image", "speech+text->image")
ASKS = {"target": ("target", "length")}
"""An objective without whose views another has none."""
RESULTS, RECORD = "results.json", "made_with.json"


def variants(objectives: ObjectivesConfig) -> dict[str, list[str]]:
    """By name the overrides of each run: everything, then without one objective or fused views."""
    present = [f.name for f in fields(objectives) if getattr(objectives, f.name) is not None]
    found: dict[str, list[str]] = {"everything": []}
    for name in present:
        dropped = [other for other in ASKS.get(name, (name,)) if other in present]
        if len(dropped) < len(present):
            found[f"without {name}"] = [f"objectives.{other}=null" for other in dropped]
    contrast = objectives.contrastive
    if contrast is not None and contrast.weight and contrast.fused:
        found["without fused contrast"] = ["objectives.contrastive.fused=0"]
    return found


def run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train and measure every variant that has no results of the very same settings yet.

    Raises:
        ConfigError: the configuration cannot be used, names no data to measure on, or a folder is
            not that of a run.
        PathError: there are no judges.
        StorageError: a folder cannot be written.
    """
    config = load_config(options.config)
    test = config.data.test or config.data.validation
    if test is None:
        raise ConfigError(f"{options.config}: names neither data.test nor data.validation")
    common = {"config": to_dict(config), "steps": options.steps, "judges": _digest(options.judges)}
    results = {}
    for name, overrides in variants(config.objectives).items():
        folder = options.out / name.replace(" ", "_")
        path = folder / RESULTS
        _prepare(folder, {**common, "overrides": overrides})
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


def _digest(judges: Path | None) -> str | None:
    """What tells judges from others, wherever they lie."""
    if judges is None:
        return None
    read_judges_config(judges)
    files = (read_bytes(judges / name) for name in (CONFIG_FILE, WEIGHTS_FILE))
    return hashlib.sha256(b"".join(files)).hexdigest()


def _prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder of a run, which goes on if it was begun with the same settings.

    Of a run with other settings, or with none that are known, nothing is left.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if RECORD in names and _read(folder / RECORD) == json.loads(json.dumps(settings)):
        return
    if names and not names & {RECORD, RESULTS}:
        raise ConfigError(f"--out: {folder} holds something else than a run without an objective")
    try:
        if names:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made anew: {error.strerror}") from error
    write_json(folder / RECORD, settings)


def _read(path: Path) -> Any:
    """What a record says; None if it is damaged."""
    try:
        return json.loads(read_bytes(path))
    except ValueError:
        return None


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
    """Print the table; runs with the same settings that are there already are not made again."""
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
