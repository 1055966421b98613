"""All that needs a GPU, in one command of less than ten minutes: tests marked `gpu`, and the losses
beside Liger's.

    python benchmarks/gpu/run.py --out runs/gpu

Nothing is downloaded. Each part has a time limit; one that fails does not stop the others, and the
exit code says whether all passed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS: dict[str, tuple[list[str], int]] = {
    "tests": (["-m", "pytest", "-m", "gpu", "--timeout", "120"], 240),
    "kernels": ([str(HERE / "kernels.py")], 180),
}
"""The arguments of Python for each part, and its limit in seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, (arguments, limit) in PARTS.items():
        with (options.out / f"{name}.txt").open("w", encoding="utf-8") as file:
            try:
                done = subprocess.run(
                    [sys.executable, *arguments],
                    cwd=HERE.parents[1],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    check=False,
                )
                outcome = "passed" if done.returncode == 0 else f"exit code {done.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"stopped after {limit} s"
        print(f"{name}: {outcome}, {file.name}")
        if outcome != "passed":
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
