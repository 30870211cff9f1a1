"""What generating for several clients at once gives, over one after the other and over groups.

row = batching(folder, Rounds(5, 8.0))
"""

import json
import random
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving.comparison import Rounds, in_turns
from benchmarks.serving.models import words
from benchmarks.serving.servers import NAME, ours

CLIENTS = 8
LONGEST = 48
"""Tokens of an answer; each client asks for another number of them."""
CHAT = "/v1/chat/completions"
BODIES = 64


def batching(folder: Path, rounds: Rounds) -> dict[str, Any]:
    """Answers a second of texts of different lengths, of one client and of several.

    Alone is one client. Together are several who all wait for the longest of their answers before
    they ask again, which is what a batch gives that is made once and computed to its end. Apart
    are as many who ask again at once: their texts enter the batch between two steps of the others.
    """
    bodies = texts()
    with ours(folder) as server:
        server.wait()
        server.path = CHAT
        load = partial(server.load, bodies, rounds.seconds)
        ways = {
            "alone": load,
            "together": partial(load, clients=CLIENTS, together=True),
            "apart": partial(load, clients=CLIENTS),
        }
        server.load(bodies, 2.0, clients=CLIENTS)
        found = in_turns(list(ways.values()), rounds)
    rates = {way: [one.rate for one in several] for way, several in zip(ways, found, strict=True)}
    middle = {way: statistics.median(several) for way, several in rates.items()}
    over_alone, over_together = (middle["apart"] / middle[way] for way in ("alone", "together"))
    return {
        "name": f"texts a second, {CLIENTS} clients apart, over one, and over them together",
        "over_alone": over_alone,
        "over_together": over_together,
        "rates": rates,
        "failed": sum(one.failed() for several in found for one in several),
        "pass": over_alone > 1 and over_together > 1,
    }


def texts() -> list[str]:
    """Bodies of a few words each, whose answers have from 1 to `LONGEST` tokens."""
    draws = random.Random(4)  # noqa: S311
    return [
        json.dumps(
            {
                "model": NAME,
                "messages": [{"role": "user", "content": words(6, draws)}],
                "max_tokens": draws.randint(1, LONGEST),
                "temperature": 0,
            }
        )
        for _ in range(BODIES)
    ]
