"""`trimodal batch`: a file of requests, answered without a server.

trimodal batch in.jsonl out.jsonl --model runs/demo/model
"""

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from trimodal.cli import Command, add_token_budget, add_weights, check_output, positive
from trimodal.errors import ConfigError

if TYPE_CHECKING:
    from trimodal_serving.backend import Setting


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("input", metavar="IN", help="JSON lines in OpenAI's batch format")
    parser.add_argument(
        "output", metavar="OUT", help="gets a line for each; one that exists goes on"
    )
    parser.add_argument("--model", required=True, help="a model folder, such as runs/demo/model")
    parser.add_argument("--name", help="what requests call the model (the name of its run)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--concurrency", type=positive, default=32, help="requests at the same time (%(default)s)"
    )
    add_weights(parser)
    add_token_budget(parser)


def run(options: argparse.Namespace) -> int:
    """Answer what is not answered yet.

    Raises:
        DataError: a line that is no request.
        StorageError: a file that cannot be read or written, or a folder that is no model.
    """
    from trimodal_serving.backend import Setting
    from trimodal_serving.batch import read_lines
    from trimodal_serving.command import default_name
    from trimodal_serving.logs import log_to_stderr

    check_output(Path(options.output), [Path(options.input)])
    for _ in read_lines(Path(options.input)):
        pass
    log_to_stderr()
    name = options.name or default_name(Path(options.model))
    setting = Setting(options.model, options.device, options.token_budget, options.weights)
    count, failed = asyncio.run(_run(options, name, setting))
    print(f"{options.output}: {count} answered, {failed} of them with an error")
    return 0


async def _run(options: argparse.Namespace, name: str, setting: "Setting") -> tuple[int, int]:
    try:
        from trimodal_serving.app import create_app
    except ImportError as error:
        raise ConfigError(f"batches need {error.name}: pip install 'trimodal[serving]'") from error
    from trimodal_serving.backend import load_model
    from trimodal_serving.batch import run_batch
    from trimodal_serving.engine import Engine

    engine = Engine(lambda: load_model(setting), setting.token_budget)
    app = create_app({name: engine}, 1 << 30)
    await engine.start()
    try:
        return await run_batch(app, Path(options.input), Path(options.output), options.concurrency)
    finally:
        await engine.close(0)


COMMAND = Command("batch", "Answer a file of requests.", configure, run)
