"""What compiling each of some dependencies costs, together with the packages that nothing else needs.

    cargo build --release --package sae-cli --timings        # in an empty target folder
    python3 scripts/compile_costs.py

Reads the newest page below target/cargo-timings/, and prints seconds of one core. Nothing is installed or downloaded.
"""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

FAMILIES = [
    ["parquet", "arrow-array", "arrow-schema"],
    ["tch", "torch-sys"],
    ["faer"],
    ["tokenizers"],
    ["resvg"],
    ["hf-hub", "ureq"],
    ["manifolds-rs"],
    ["clap", "clap_complete"],
]


def seconds() -> Counter:
    """Of every package, all of its units together."""
    page = max(Path("target/cargo-timings").glob("cargo-timing-*.html"))
    units = json.loads(re.search(r"const UNIT_DATA = (\[.*?\]);\n", page.read_text(), re.S).group(1))
    found = Counter()
    for unit in units:
        found[unit["name"]] += unit["duration"]
    return found


def dependencies() -> tuple[dict, dict, str]:
    """Names and dependencies by id, without those of tests alone; the id of the binary."""
    command = "cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu".split()
    metadata = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    edges = {
        node["id"]: [
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"])
        ]
        for node in metadata["resolve"]["nodes"]
    }
    return names, edges, next(package for package in edges if names[package] == "sae-cli")


def main() -> None:
    cost = seconds()
    names, edges, root = dependencies()

    def needed(without: list[str]) -> set[str]:
        seen, open_ = set(), [root]
        while open_:
            package = open_.pop()
            if package in seen:
                continue
            seen.add(package)
            open_.extend(other for other in edges[package] if names[other] not in without)
        return {names[package] for package in seen}

    everything = needed([])
    print(f"{len(everything)} packages, {sum(cost.values()):.0f} s of one core")
    for family in FAMILIES:
        own = everything - needed(family)
        print(f"{', '.join(family)}: {sum(cost[name] for name in own):.0f} s, {len(own)} packages")


if __name__ == "__main__":
    main()
