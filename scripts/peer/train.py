"""The peer that training speed and memory are measured against: steps of `objectives.py` on a random model, in f32.

    python scripts/peer/train.py '{"family": "gpt2", "layers": 6, "d_model": 128, "heads": 4, "vocab": 4096,
        "context": 128, "batch": 8, "layer": 3, "expansion": 60, "type": "e2e", "warmup_steps": 3,
        "measured_steps": 10, "threads": 2, "device": "cpu", "active": null}'

Prints one line of JSON: `seconds` (a number a measured step), `tokens_per_step`, `peak_bytes` (resident, the whole
process), `import_bytes` (the same before set-up), `device_peak_bytes` (PyTorch's allocations on the GPU; null on a
CPU), `l0` (features a token, at the end), `torch`, `transformer_lens`. Standard output has nothing else.

With `--serve`, for measurements that alternate between two programs: after set-up and warm-up it prints
`{"ready": true}`; then for every line `N` on standard input it takes N steps and prints the same without the last two;
it ends with the input.

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
from typing import Any

import torch
from models import Sizes, random_hooked
from objectives import Loss, Options, Sae, Trainer
from torch import Tensor
from transformer_lens import HookedTransformer

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
    tf32: bool = False  # PyTorch's default; matters on a GPU only.

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.family, self.layers, self.d_model, self.heads, self.vocab, self.context)

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_pre"

    @property
    def loss(self) -> Loss:
        """Coefficients of the paper's order; `e2e+ds` with every later `hook_resid_pre`."""
        if self.type == "local":
            return Loss(sparsity=4.0, local=1.0)
        if self.type == "e2e":
            return Loss(sparsity=1.5, kl=1.0)
        if self.type == "e2e+ds" and self.layer + 1 < self.layers:
            later = tuple(f"blocks.{block}.hook_resid_pre" for block in range(self.layer + 1, self.layers))
            return Loss(sparsity=1.5, kl=0.5, downstream=2.5, downstream_sites=later)
        raise ValueError(f"{self.type!r} at layer {self.layer}: local, e2e, or e2e+ds with a block after the SAE's")


@torch.no_grad()
def set_active(sae: Sae, model: HookedTransformer, settings: Settings, batches: list[Tensor]) -> None:
    """Sets each feature's bias so that it is active on `active / F` of some tokens."""
    rows = -(-SAMPLED_TOKENS // settings.context)
    tokens = torch.cat(batches)[:rows]
    parts = []
    for part in tokens.split(settings.batch):
        _, cache = model.run_with_cache(part, names_filter=settings.site, stop_at_layer=settings.layer + 1)
        parts.append(cache[settings.site].flatten(0, 1))
    x, encoder = torch.cat(parts), sae.encoder[0]  # [N, D]
    inactive = 1 - settings.active / encoder.out_features
    for part in torch.arange(encoder.out_features, device=x.device).split(1024):
        encoder.bias[part] = -torch.quantile(x @ encoder.weight[part].T, inactive, dim=0)


def resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB.


class Bench:
    """The peer, set up and warm."""

    def __init__(self, settings: Settings) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        torch.backends.cuda.matmul.allow_tf32 = settings.tf32
        torch.manual_seed(0)
        self.settings, self.import_bytes = settings, resident_peak()
        model = random_hooked(settings.sizes, settings.device, seed=0)
        shape = (settings.batch, settings.context)
        batches = [torch.randint(settings.vocab, shape, device=settings.device) for _ in range(PREPARED_BATCHES)]
        sae = Sae(settings.d_model, round(settings.expansion * settings.d_model)).to(settings.device)
        if settings.active is not None:
            set_active(sae, model, settings, batches)
        options = Options(settings.lr, max_grad_norm=10.0, steps=1_000_000)
        self.trainer = Trainer(model, settings.site, sae, settings.loss, options)
        self.batches: Iterator[Tensor] = itertools.cycle(batches)
        self.measure(settings.warmup_steps)

    def measure(self, steps: int) -> dict[str, Any]:
        cuda = torch.device(self.settings.device).type == "cuda"
        seconds = []
        for _ in range(steps):
            batch = next(self.batches)
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            self.trainer.step([batch], logged=False)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        peaks = {
            "peak_bytes": resident_peak(),
            "import_bytes": self.import_bytes,
            "device_peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        }
        tokens = self.settings.batch * self.settings.context
        l0 = self.trainer.step([next(self.batches)]).l0
        return {"seconds": seconds, "tokens_per_step": tokens, **peaks, "l0": l0}


def answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The training peer; see the head of this file.")
    parser.add_argument("settings", help="JSON")
    parser.add_argument("--serve", action="store_true", help="take steps on request")
    arguments = parser.parse_args()
    settings = Settings(**json.loads(arguments.settings))
    with contextlib.redirect_stdout(sys.stderr):
        bench = Bench(settings)
    if arguments.serve:
        answer({"ready": True})
        for line in sys.stdin:
            answer(bench.measure(int(line)))
        return
    answer({
        **bench.measure(settings.measured_steps), "torch": version("torch"),
        "transformer_lens": version("transformer-lens"),
    })  # fmt: skip


if __name__ == "__main__":
    main()
