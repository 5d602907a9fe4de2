"""The long form of the model test (`test_model`).

    python -m tests.reliability.model --steps 100000 [--seconds S] [--seed N]

Prints what was done and which faults fired; 1, and the shortest history that shows it, when the contract was broken.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.reliability import test_model

STEPS = 50
"""Of one history."""
HISTORIES = 20
"""Between two lines of the output."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.model", description="The model test.")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no more after so long")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    asked = parser.parse_args()
    logging.disable()
    figures, end = test_model.FIGURES, time.monotonic() + asked.seconds
    round_settings = settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    number = asked.seed
    while figures["steps"] < asked.steps and time.monotonic() < end:
        try:
            run_state_machine_as_test(seed(number)(test_model.Mounts), settings=round_settings)
        except BaseException:
            print(f"broken with seed {number} after {figures['steps']} steps", flush=True)
            raise
        number += 1
        print(f"{figures['steps']} steps, {figures['operations']} operations", flush=True)
    for what, count in sorted(figures.items()):
        print(f"{count:8} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
