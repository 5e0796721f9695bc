"""Where a benchmark's numbers go."""

import json
from pathlib import Path


def add_output(parser, name):
    """The options ``--out`` and ``--json``, for a file of that name."""
    parser.add_argument("--out", type=Path, default=Path("runs"), help=f"directory for {name}.json")
    parser.add_argument("--json", type=Path, help="write every number printed to this file instead")


def write(numbers, arguments, name):
    """Numbers to where the options say; the numbers."""
    path = arguments.json or arguments.out / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2))
    return numbers
