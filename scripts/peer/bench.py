"""What the training peers of `train.py` and `best.py` share: the settings, the thresholds of `active`, and the steps.

    python scripts/peer/PEER.py '{"family": "gpt2", "layers": 6, "d_model": 128, "heads": 4, "vocab": 4096,
        "context": 128, "batch": 8, "layer": 3, "expansion": 60, "type": "e2e", "warmup_steps": 3,
        "measured_steps": 10, "threads": 2, "device": "cpu", "active": null, "precision": "f32"}'

Prints one line of JSON: `seconds` (a number a measured step), `tokens_per_step`, `peak_bytes` (resident, the whole
process), `import_bytes` (the same before set-up), `device_peak_bytes` (PyTorch's allocations on the GPU; null on a
CPU), `l0` (features a token, at the end), and the versions.

With `--serve`, for measurements that alternate between two programs: after set-up and warm-up it prints
`{"ready": true}`; then for every line `N` on standard input it takes N steps and prints the same without the versions;
it ends with the input. `--kernels FILE` writes the GPU's kernels by time, of three steps, when it ends.

A step is a batch of random tokens, made beforehand, then gradients, clipping and Adam; `l0` is of a further step that
is not measured. `active`: the encoder's bias is set so that about so many features are active on a token at the start;
null leaves the initialisation. Legend: N tokens, D model width, F features.
"""

import argparse
import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

PREPARED_BATCHES = 8
SAMPLED_TOKENS = 4096  # For the thresholds of `active`.


@dataclass(frozen=True)
class Settings:
    """The argument."""

    family: str
    layers: int
    d_model: int
    heads: int
    vocab: int
    context: int
    batch: int
    layer: int  # The SAE stands before this block.
    expansion: float  # F / D
    type: str  # local, e2e or e2e+ds
    warmup_steps: int = 3
    measured_steps: int = 10
    threads: int | None = None  # PyTorch's own choice where left out.
    device: str = "cpu"
    active: int | None = None
    lr: float = 5e-4
    precision: str = "f32"  # Of products: f32, tf32, or bf16 in the model and the SAE.

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_pre"

    @property
    def features(self) -> int:
        return round(self.expansion * self.d_model)

    @property
    def on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"


class Peer(Protocol):
    """A program that is measured."""

    def step(self, tokens: Tensor) -> None:
        """One step of the optimiser on a batch [B, T]."""

    def l0(self, tokens: Tensor) -> float:
        """The same, and active features a token."""


def prepared(settings: Settings) -> list[Tensor]:
    """The batches of tokens, [B, T] each."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = settings.precision != "f32"
    torch.manual_seed(0)
    shape = (settings.batch, settings.context)
    return [torch.randint(settings.vocab, shape, device=settings.device) for _ in range(PREPARED_BATCHES)]


@torch.no_grad()
def thresholds(x: Tensor, weight: Tensor, active: int) -> Tensor:
    """Biases [F] with which each feature is active on `active / F` of the tokens of `x` [N, D]; `weight` is [F, D]."""
    inactive = 1 - active / weight.shape[0]
    parts = [-torch.quantile(x @ part.T, inactive, dim=0) for part in weight.split(1024)]
    return torch.cat(parts)


def resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB.


class Bench:
    """A peer, set up and warm."""

    def __init__(self, settings: Settings, peer: Peer, batches: list[Tensor], import_bytes: int) -> None:
        self.settings, self.peer, self.import_bytes = settings, peer, import_bytes
        self.batches: Iterator[Tensor] = itertools.cycle(batches)
        self.measure(settings.warmup_steps)

    def wait(self) -> None:
        if self.settings.on_gpu:
            torch.cuda.synchronize()

    def measure(self, steps: int) -> dict[str, Any]:
        seconds = []
        for _ in range(steps):
            batch = next(self.batches)
            self.wait()
            start = time.perf_counter()
            self.peer.step(batch)
            self.wait()
            seconds.append(time.perf_counter() - start)
        peaks = {
            "peak_bytes": resident_peak(),
            "import_bytes": self.import_bytes,
            "device_peak_bytes": torch.cuda.max_memory_allocated() if self.settings.on_gpu else None,
        }
        tokens = self.settings.batch * self.settings.context
        return {"seconds": seconds, "tokens_per_step": tokens, **peaks, "l0": self.peer.l0(next(self.batches))}

    def kernels(self) -> str:
        """The GPU's kernels by time, of three steps."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            for _ in range(3):
                self.peer.step(next(self.batches))
            self.wait()
        return str(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=90))


def answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def main(head: str, make: Any, packages: list[str]) -> None:
    """Serves the peer that `make(settings, batches)` gives."""
    parser = argparse.ArgumentParser(description=head)
    parser.add_argument("settings", help="JSON")
    parser.add_argument("--serve", action="store_true", help="take steps on request")
    parser.add_argument("--kernels", type=Path, help="write the GPU's kernels by time to this file")
    arguments = parser.parse_args()
    settings = Settings(**json.loads(arguments.settings))
    import_bytes = resident_peak()
    with contextlib.redirect_stdout(sys.stderr):
        batches = prepared(settings)
        bench = Bench(settings, make(settings, batches), batches, import_bytes)
    if arguments.serve:
        answer({"ready": True})
        for line in sys.stdin:
            answer(bench.measure(int(line)))
    else:
        versions = {package.replace("-", "_"): version(package) for package in packages}
        answer({**bench.measure(settings.measured_steps), **versions})
    if arguments.kernels is not None:
        arguments.kernels.write_text(bench.kernels())
