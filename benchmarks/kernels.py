"""Packed operations against padded ones and PyTorch's own: `trimodal bench kernels`.

python benchmarks/kernels.py --config configs/demo.yaml --json rows.json
"""

import sys

from trimodal.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "kernels", *sys.argv[1:]]))
