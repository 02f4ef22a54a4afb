"""The peer that training speed and memory are measured against: steps of `objectives.py` on a random model of
TransformerLens, eager, as the reference trains. What it takes and prints is in `bench.py`.

`precision`: f32 is PyTorch's default, which on a GPU takes no product in TF32; bf16 is autocast's.
"""

import torch
from bench import SAMPLED_TOKENS, Settings, main, thresholds
from models import Sizes, random_hooked
from objectives import Loss, Options, Sae, Trainer
from torch import Tensor
from transformer_lens import HookedTransformer


def loss(settings: Settings) -> Loss:
    """Coefficients of the paper's order; `e2e+ds` with every later `hook_resid_pre`."""
    if settings.type == "local":
        return Loss(sparsity=4.0, local=1.0)
    if settings.type == "e2e":
        return Loss(sparsity=1.5, kl=1.0)
    if settings.type == "e2e+ds" and settings.layer + 1 < settings.layers:
        later = tuple(f"blocks.{block}.hook_resid_pre" for block in range(settings.layer + 1, settings.layers))
        return Loss(sparsity=1.5, kl=0.5, downstream=2.5, downstream_sites=later)
    raise ValueError(f"{settings.type!r} at layer {settings.layer}: local, e2e, or e2e+ds with a block after the SAE's")


@torch.no_grad()
def set_active(sae: Sae, model: HookedTransformer, settings: Settings, batches: list[Tensor]) -> None:
    """Sets each feature's bias so that it is active on `active / F` of some tokens."""
    rows = -(-SAMPLED_TOKENS // settings.context)
    parts = []
    for part in torch.cat(batches)[:rows].split(settings.batch):
        _, cache = model.run_with_cache(part, names_filter=settings.site, stop_at_layer=settings.layer + 1)
        parts.append(cache[settings.site].flatten(0, 1))
    encoder = sae.encoder[0]
    encoder.bias.copy_(thresholds(torch.cat(parts), encoder.weight, settings.active))


class Eager:
    """`objectives.Trainer`, in a precision."""

    def __init__(self, settings: Settings, batches: list[Tensor]) -> None:
        sizes = Sizes(
            settings.family, settings.layers, settings.d_model, settings.heads, settings.vocab, settings.context
        )
        model = random_hooked(sizes, settings.device, seed=0)
        sae = Sae(settings.d_model, settings.features).to(settings.device)
        if settings.active is not None:
            set_active(sae, model, settings, batches)
        options = Options(settings.lr, max_grad_norm=10.0, steps=1_000_000)
        self.trainer = Trainer(model, settings.site, sae, loss(settings), options)
        self.device, self.lowered = torch.device(settings.device).type, settings.precision == "bf16"

    def step(self, tokens: Tensor) -> None:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.lowered):
            self.trainer.step([tokens], logged=False)

    def l0(self, tokens: Tensor) -> float:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.lowered):
            return self.trainer.step([tokens]).l0


if __name__ == "__main__":
    main(__doc__.splitlines()[0], Eager, ["torch", "transformer-lens"])
