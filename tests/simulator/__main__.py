"""`python -m tests.simulator SEED [--without GUARD] [--calm STEP]… [--smaller]`: a seed again.

`--calm` leaves a kind of step out; `--smaller` looks for the kinds that the failure doesn't need.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--without", default="")
    parser.add_argument("--calm", action="append", default=[])
    parser.add_argument("--smaller", action="store_true")
    asked = parser.parse_args()
    os.environ["SIMULATOR_SEED"] = str(asked.seed)
    os.environ["SIMULATOR_WITHOUT"] = asked.without
    os.environ["SIMULATOR_CALM"] = " ".join(asked.calm)
    os.environ["SIMULATOR_SMALLER"] = "1" if asked.smaller else ""
    file = Path(__file__).with_name("replay.py")
    return pytest.main(["-q", "-s", "-p", "no:logging", "-o", "timeout=0", str(file)])


if __name__ == "__main__":
    sys.exit(main())
