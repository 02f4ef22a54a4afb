"""Reads the event file of a run with TensorBoard itself, and compares every number with `metrics.jsonl`.

    python3 -m venv target/venv-tensorboard
    target/venv-tensorboard/bin/pip install tensorboard==2.20.0 'setuptools<81'
    target/release/sae train configs/runs/rust-lm.toml --set log.tensorboard=true --set eval.every_n_samples=800 --out runs/logged
    target/venv-tensorboard/bin/python scripts/read_events.py runs/logged

Exit code 1 with a message where they differ. Python 3.11 or later; nothing is downloaded.
"""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def expected(run: Path) -> tuple[dict, dict]:
    """The numbers by tag and step, and the counts of histograms likewise."""
    scalars, histograms = {}, {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        step = line["step"]
        if "evaluation" not in line:
            for name, value in line.items():
                if name not in ("step", "samples") and isinstance(value, (int, float)):
                    scalars[name, step] = value
            continue
        for name, value in line["evaluation"].items():
            if name != "tokens" and isinstance(value, (int, float)):
                scalars[f"evaluation/{name}", step] = value
        features = line["features"]
        scalars["evaluation/alive", step] = sum(site["alive"] for site in features.values())
        for site, found in features.items():
            histograms[f"log10_frequency/{site}", step] = found["log10_frequency"]
    return scalars, histograms


def main() -> None:
    run = Path(sys.argv[1])
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    scalars, histograms = expected(run)
    found = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    if found.keys() != scalars.keys():
        sys.exit(f"tags and steps differ: {sorted(found.keys() ^ scalars.keys())[:10]}")
    for key, value in scalars.items():
        if abs(found[key] - value) > 1e-6 * max(1.0, abs(value)):
            sys.exit(f"{key} is {found[key]} in the event file, {value} in metrics.jsonl")
    shown = {
        (tag, event.step): event.histogram_value for tag in events.Tags()["histograms"] for event in events.Histograms(tag)
    }
    if shown.keys() != histograms.keys():
        sys.exit(f"histograms differ: {sorted(shown.keys() ^ histograms.keys())[:10]}")
    for key, counts in histograms.items():
        if list(shown[key].bucket)[1:] != counts or shown[key].num != sum(counts):
            sys.exit(f"{key} has {list(shown[key].bucket)} in the event file, {counts} in metrics.jsonl")
    print(f"{len(scalars)} numbers and {len(histograms)} histograms are the same")


if __name__ == "__main__":
    main()
