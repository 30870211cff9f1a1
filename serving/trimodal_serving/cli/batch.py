"""`trimodal batch`: a file of requests, answered without a server.

trimodal batch in.jsonl out.jsonl --model runs/demo/model
"""

import argparse
import asyncio
import json
from collections.abc import Container, Iterator
from pathlib import Path

from trimodal.cli import Command, add_device, add_token_budget, add_weights, check_output, positive
from trimodal.errors import ConfigError, DataError
from trimodal.storage import check_writable, naming

EXIT_FAILURES = 65


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "Exits with 65 if a request has an error for its answer, of this run or before."
    parser.add_argument("input", metavar="IN", help="JSON lines in OpenAI's batch format")
    parser.add_argument(
        "output", metavar="OUT", help="gets a line for each; one that exists goes on"
    )
    parser.add_argument("--model", required=True, help="a model folder, such as runs/demo/model")
    parser.add_argument("--name", help="what requests call the model (the name of its run)")
    add_device(parser)
    parser.add_argument(
        "--concurrency", type=positive, default=32, help="requests at the same time (%(default)s)"
    )
    add_weights(parser)
    add_token_budget(parser)


def run(options: argparse.Namespace) -> int:
    """Answer what is not answered yet.

    Raises:
        DataError: a file of requests that is not there, or a line that is no request.
        PathError: a folder that is no model, or a place for the answers that cannot be.
        StorageError: a file that cannot be read or written.
    """
    from trimodal_serving.batch import answered, read_lines
    from trimodal_serving.logs import log_to_stderr

    source, target = Path(options.input), Path(options.output)
    check_output(target, [source])
    if not source.exists():
        raise DataError(f"{source} cannot be read: there is no such file")
    check_writable(target)
    requests = [line.custom_id for line in read_lines(source)]
    if not requests:
        raise DataError(f"{source} has no requests")
    count = 0
    if not answered(target).issuperset(requests):  # otherwise no model is loaded
        log_to_stderr()
        count, _ = asyncio.run(_run(options, target))
    before = len(requests) - count
    failures = list(_failures(target, set(requests)))
    told = f"{count} of {len(requests)} requests answered"
    print(f"{target}: {told}, {before} were before" if before else f"{target}: {told}")
    if failures:
        print(f"errors among the answers: {len(failures)}, the first of {failures[0]}")
        print(f"what is taken out of {target} is asked again by the same command")
    return EXIT_FAILURES if failures else 0


def _failures(target: Path, requests: Container[str]) -> Iterator[str]:
    """What is wrong with each answer that is an error."""
    with naming(target, "read"), target.open("rb") as file:
        for text in file:
            tree = json.loads(text)
            answer = tree["response"]
            if tree["custom_id"] in requests and answer["status_code"] >= 400:
                error = answer["body"].get("error")
                cause = f" {error['message']}" if isinstance(error, dict) else ""
                yield f"{tree['custom_id']}: {answer['status_code']}{cause}"


async def _run(options: argparse.Namespace, target: Path) -> tuple[int, int]:
    try:
        from trimodal_serving.app import create_app
    except ImportError as error:
        raise ConfigError(f"batches need {error.name}: pip install 'trimodal[serving]'") from error
    from trimodal_serving.backend import Setting, load_model
    from trimodal_serving.batch import run_batch
    from trimodal_serving.command import default_name
    from trimodal_serving.engine import Engine

    name = options.name or default_name(Path(options.model))
    setting = Setting(options.model, options.device, options.token_budget, options.weights)
    engine = Engine(lambda: load_model(setting), setting.token_budget)
    app = create_app({name: engine}, 1 << 30)
    await engine.start()
    try:
        return await run_batch(app, Path(options.input), target, options.concurrency)
    finally:
        await engine.close(0)


COMMAND = Command("batch", "Answer a file of requests.", configure, run)
