"""`trimodal train CONFIG [key=value ...]`: one process; `accelerate launch` starts several."""

from trimodal.cli import Command
from trimodal.train import configure, run

COMMAND = Command("train", "Pre-train a model as a YAML file says.", configure, run)
