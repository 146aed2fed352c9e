"""Fuzzes one target, or each in turn, guided by coverage where atheris is installed: `python -m tests.fuzz`.

Without atheris the inputs are mutations of the corpus alone, chosen by chance. A fault ends the run with its traceback
and the input, which belongs into `tests/fuzz/corpus.py`.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

NAMES = ("requests", "configuration", "tokens", "certificates", "authentication")
"""The targets; they are imported where they are run, since atheris instruments what is imported."""


def by_chance(name: str, seconds: float, seed: int) -> Counter[str]:
    """Runs a target on mutated inputs for a while."""
    from tests.fuzz.corpus import CORPUS, mutated
    from tests.fuzz.targets import TARGETS

    chance, outcomes = random.Random(seed), Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(chance.choice(CORPUS[name]), chance)
        try:
            outcomes[TARGETS[name](data)] += 1
        except BaseException:
            print(f"the input was {data!r}", file=sys.stderr)
            raise
    return outcomes


def by_coverage(name: str, seconds: float) -> None:
    """Runs a target under atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["abstractllm", "abstractllm_server", "yaml"]):
        from tests.fuzz.corpus import CORPUS
        from tests.fuzz.targets import TARGETS

    def run(data: bytes) -> None:
        TARGETS[name](data)

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(CORPUS[name]):
            (Path(folder) / str(number)).write_bytes(data)
        options = [f"-max_total_time={int(seconds)}", "-max_len=4096", "-rss_limit_mb=4096", folder]
        atheris.Setup([sys.argv[0], *options], run)
        atheris.Fuzz()


def main() -> int:
    """Fuzzes what the command line names, and prints a line for each target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], help="all if none is named")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--coverage", action="store_true", help="guided by coverage; needs atheris")
    options = parser.parse_args()
    names = options.targets or list(NAMES)
    if options.coverage and find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install atheris")
    failed = 0
    for name in names:
        if options.coverage and len(names) > 1:  # atheris ends its process
            command = [sys.executable, "-m", "tests.fuzz", name, "--coverage", "--seconds", str(options.seconds)]
            failed |= subprocess.run(command, check=False).returncode
        elif options.coverage:
            by_coverage(name, options.seconds)
        else:
            outcomes = by_chance(name, options.seconds, options.seed)
            print(f"{name}: {outcomes.total()} inputs, {dict(outcomes.most_common())}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
