"""The peer that the cosines of dictionaries are measured against: PyTorch, the whole matrix of cosines at once, as the
reference computes them.

    python scripts/peer/cosines.py --rows 46080 --columns 768

Prints one line of JSON: `within_seconds` (two dictionaries, each to its own others), `across_seconds` (both ways),
`peak_bytes` (of the process) and `versions`.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version

import torch
from torch import Tensor
from torch.nn.functional import normalize


def within(dictionary: Tensor) -> Tensor:
    rows = normalize(dictionary, dim=1)
    cosines = rows @ rows.T
    return cosines.fill_diagonal_(-2.0).amax(dim=1)


def across(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    cosines = normalize(a, dim=1) @ normalize(b, dim=1).T
    return cosines.amax(dim=1), cosines.amax(dim=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--columns", type=int, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    a, b = (torch.rand(arguments.rows, arguments.columns) * 2 - 1 for _ in range(2))
    began = time.perf_counter()
    own = within(a), within(b)
    between = time.perf_counter()
    both = across(a, b)
    ended = time.perf_counter()
    assert all(torch.isfinite(found).all() for found in (*own, *both))
    found = {
        "within_seconds": between - began,
        "across_seconds": ended - between,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": version("torch")},
    }
    print(json.dumps(found))


main()
