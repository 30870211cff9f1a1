"""The forward of the model alone, in a process that measures when it is told to.

python -m benchmarks.serving.bare MODEL CORE, then a line of JSON with texts, then a line a round
"""

import json
import os
import sys
import time

import torch

import trimodal
from trimodal.batch import Modality, Sample


def main(folder: str, core: str) -> None:
    """Answer each line with the seconds of one forward for each text."""
    os.sched_setaffinity(0, {int(core)})
    torch.set_num_threads(1)
    model = trimodal.load(folder)
    processor = model.processor
    assert processor is not None  # noqa: S101 - the folder has one
    texts = json.loads(sys.stdin.readline())
    samples = [
        Sample(text, {Modality.TEXT: processor.medium(Modality.TEXT, text)}, 0) for text in texts
    ]
    for sample in samples:
        model.embed_samples([sample])
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        for sample in samples:
            start = time.perf_counter()
            model.embed_samples([sample])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
