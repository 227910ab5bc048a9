"""What the plugin costs a pytest run that does not ask for it.

    python benchmarks/startup.py [--quick]

Runs an empty test file with the plugin and with ``-p no:autoresearch``, interleaved, each in a
fresh process, and compares the medians of their CPU milliseconds: on a shared machine wall
milliseconds belong to others.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds = 7 if parser.parse_args().quick else 31
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing(): pass\n")

        def run(*options: str) -> float:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return 1000 * spent

        pairs = [(run(), run("-p", "no:autoresearch")) for _ in range(rounds)][1:]
    with_plugin, without = zip(*pairs, strict=True)
    cost = statistics.median(a - b for a, b in pairs)
    print(f"{'':24}{'CPU ms':>10}")
    print(f"{'with the plugin':24}{statistics.median(with_plugin):10.1f}")
    print(f"{'-p no:autoresearch':24}{statistics.median(without):10.1f}")
    print(f"{'cost (paired)':24}{cost:10.1f}")
    print(json.dumps({"plugin_cost_ms": round(cost, 2), "rounds": rounds}))


if __name__ == "__main__":
    main()
