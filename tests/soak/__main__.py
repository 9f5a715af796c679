"""Uses and kills a whole stack for a long time, and says whether memory, disk, tasks and connections stay flat.

    python -m tests.soak [--minutes 30] [--seed 0] [--report soak.json]

The last line is one JSON object; the exit status is 1 when something grows, is left over, lost or doubled.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=30, help="under load; rests come before and after"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="also write the JSON object to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), minutes=asked.minutes, seed=asked.seed)
    if asked.report:
        asked.report.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    raise SystemExit(not found["flat"])


if __name__ == "__main__":
    main()
