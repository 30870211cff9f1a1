"""`python -m trimodal` is the `trimodal` command."""

import sys

from trimodal.cli import main

sys.exit(main())
