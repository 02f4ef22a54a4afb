"""The page that `parity.py` writes: its tables and its text."""

import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

QUANTITIES = {
    "loss": "loss", "sparsity": "sparsity", "local": "local", "downstream": "downstream", "kl": "KL", "l0": "L0",
    "grad_norm": "gradient norm", "lr": "learning rate", "weights": "weights", "path": "weights, of the way",
}  # fmt: skip

PAGE = """# Parity with PyTorch

The same SAEs, trained by `sae train` and in PyTorch on TransformerLens as the reference implementation trains them,
compared step by step.

{setting}

Made by `scripts/parity.py` on {date}, at commit
{commit}.

- This side: {ours}.
- The other: Python {python}, {libraries}.

## What was trained

First step → last, in PyTorch in f64. Terms at unit coefficient; KL in nats a token, L0 in features a token.

{trained}

## Differences

The largest relative difference over all steps. Of the weights after the last step: ‖difference‖ / ‖weights‖, and as a
part of the way that training took them, ‖difference‖ / ‖end − start‖.

### f64

Bounds: {bounds[f64]}.

{differences[f64]}

### f32

Bounds: {bounds[f32]}.

{differences[f32]}

### PyTorch in f32 against PyTorch in f64

What rounding alone does, for scale.

{differences[rounding]}
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def difference_table(cases: Mapping[str, Mapping[str, float]]) -> str:
    """A row a case, given as its quantities; what a case lacks is a dash."""
    rows = [
        [name, *(f"{found[quantity]:.1e}" if quantity in found else "–" for quantity in QUANTITIES)]
        for name, found in cases.items()
    ]
    return table(["", *QUANTITIES.values()], rows)


def training_table(cases: Mapping[str, Sequence[Mapping[str, float]]], clipped: Mapping[str, int]) -> str:
    """A row a case, given as its lines, a mapping of quantities a step."""
    shown = [name for name in QUANTITIES if any(name in lines[0] for lines in cases.values()) and name != "lr"]
    rows = []
    for case, lines in cases.items():
        first, last = lines[0], lines[-1]
        ends = [f"{first[name]:.3g} → {last[name]:.3g}" if name in first else "–" for name in shown]
        rows.append([case, *ends, f"{clipped[case]} of {len(lines)}"])
    return table(["", *(QUANTITIES[name] for name in shown), "steps clipped"], rows)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path, page: Path) -> str:
    changed = git(root, "status", "--porcelain", "--", ".", f":!{page.relative_to(root).as_posix()}")
    return git(root, "rev-parse", "HEAD") + (", with changes that are not committed" if changed else "")


def text(root: Path, page: Path, **parts: object) -> str:
    """The page; `parts` are what `PAGE` names and is not filled in here."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformer-lens", "transformers"))
    return PAGE.format(
        date=datetime.date.today(), commit=commit(root, page), python=platform.python_version(), libraries=libraries,
        **parts,
    )  # fmt: skip
