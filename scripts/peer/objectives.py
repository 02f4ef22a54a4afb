"""The paper's three objectives in plain PyTorch on a TransformerLens model, computed as the reference `e2e_sae` does.

A clean pass keeps the activations that are needed; `local` stops it after the SAE's block. Otherwise a spliced pass
runs the whole model again from the tokens, with the SAE's reconstruction in the place of its site's activation, and
both passes keep their logits. Left out is what changes no number of the training: clones, explained variances, logging.

Terms of the loss (arXiv 2405.12241), all means over tokens, by this project's names; the reference's in brackets:

    sparsity              ‖c‖_p / D
    local (out_to_in)     mean over D of (x_hat − x)², x being the SAE's input, not detached
    downstream            mean over its sites of the mean over D of (spliced − clean)²
        (in_to_orig)
    kl (logits_kl)        KL(original ‖ spliced), in nats

Legend: B sequences, T context length, D model width, F features, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformer_lens import HookedTransformer
from transformer_lens.hook_points import HookPoint


class Sae(nn.Module):
    """The reference's SAE: modules, and so the keys of the state dict, by its names."""

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(dim, features), nn.ReLU())
        self.decoder = nn.Linear(features, dim)
        with torch.no_grad():
            nn.init.orthogonal_(self.decoder.weight.T)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction [..., D] of `x` [..., D], and the feature activations c [..., F]."""
        c = self.encoder(x)
        return F.linear(c, F.normalize(self.decoder.weight, dim=0), self.decoder.bias), c


@dataclass(frozen=True)
class Loss:
    """Coefficients of the terms. None: neither trained on nor tracked; 0: tracked."""

    sparsity: float
    local: float | None = None
    downstream: float | None = None  # In total, divided evenly among the sites.
    kl: float | None = None
    downstream_sites: tuple[str, ...] = ()
    p_norm: float = 1.0

    @property
    def coefficients(self) -> dict[str, float]:
        names = ("sparsity", "local", "downstream", "kl")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def is_local(self) -> bool:
        return self.downstream is None and self.kl is None


@dataclass(frozen=True)
class Options:
    """The optimiser. Steps are samples // effective batch."""

    lr: float
    max_grad_norm: float
    steps: int
    warmup_steps: int = 0
    min_lr_factor: float = 0.1


@dataclass(frozen=True)
class Step:
    """What a step is logged with: means over its batches, and the gradient's norm before clipping."""

    loss: float
    terms: dict[str, float]  # At unit coefficient.
    l0: float
    lr: float
    grad_norm: float


@dataclass(frozen=True)
class Pass:
    """A pass with the SAE in."""

    x: Tensor  # [B, T, D], the SAE's input
    c: Tensor  # [B, T, F]
    x_hat: Tensor  # [B, T, D]
    downstream: dict[str, Tensor]  # [B, T, D] by site
    logits: Tensor | None  # [B, T, V]; None where the pass ends at the SAE


def cosine(step: int, warmup: int, end: int, min_factor: float) -> float:
    """The factor of the learning rate at a step, counted from 0: the reference's schedule, which is 0 at step 0."""
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, end - warmup)
    return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def kl_loss(original: Tensor, spliced: Tensor) -> Tensor:
    """KL(original ‖ spliced) of logits [..., V], in nats a token."""
    log_p, log_q = (F.log_softmax(logits.flatten(0, -2), dim=-1) for logits in (original, spliced))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


class Trainer:
    """Trains the SAE of one site on a frozen model."""

    def __init__(self, model: HookedTransformer, site: str, sae: Sae, loss: Loss, options: Options) -> None:
        self.model = model.eval().requires_grad_(False)
        self.site, self.sae, self.loss, self.options = site, sae, loss, options
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=options.lr)
        self.scheduler = LambdaLR(
            self.optimizer, lambda step: cosine(step, options.warmup_steps, options.steps, options.min_lr_factor)
        )

    def step(self, batches: Sequence[Tensor], logged: bool = True) -> Step | None:
        """One step of Adam on the gradients of all batches [B, T] of tokens."""
        records = []
        for tokens in batches:
            terms, c = self.terms(tokens)
            loss = sum(coefficient * terms[name] for name, coefficient in self.loss.coefficients.items())
            (loss / len(batches)).backward()
            if logged:
                records.append({**terms, "loss": loss, "l0": (c > 0).sum(-1).to(c.dtype).mean()})
        norm = nn.utils.clip_grad_norm_(self.sae.parameters(), self.options.max_grad_norm).item()
        lr = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        if not logged:
            return None
        mean = {name: sum(record[name].item() for record in records) / len(records) for name in records[0]}
        return Step(mean.pop("loss"), l0=mean.pop("l0"), terms=mean, lr=lr, grad_norm=norm)

    def terms(self, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The terms at unit coefficient, and c [B, T, F]."""
        block = int(self.site.split(".")[1])
        original, clean = self.model.run_with_cache(
            tokens, names_filter=[self.site, *self.loss.downstream_sites], return_cache_object=False,
            stop_at_layer=block + 1 if self.loss.is_local else None,
        )  # fmt: skip
        run = self.at_site(clean[self.site]) if self.loss.is_local else self.spliced(tokens)
        terms = {"sparsity": torch.linalg.vector_norm(run.c, ord=self.loss.p_norm, dim=-1).mean() / run.x.shape[-1]}
        if self.loss.local is not None:
            terms["local"] = F.mse_loss(run.x_hat, run.x)
        if self.loss.downstream is not None:
            errors = [F.mse_loss(run.downstream[site], clean[site]) for site in self.loss.downstream_sites]
            terms["downstream"] = torch.stack(errors).mean()
        if self.loss.kl is not None:
            terms["kl"] = kl_loss(original, run.logits)
        return terms, run.c

    def at_site(self, x: Tensor) -> Pass:
        x_hat, c = self.sae(x)
        return Pass(x, c, x_hat, downstream={}, logits=None)

    def spliced(self, tokens: Tensor) -> Pass:
        """The whole model on tokens [B, T], with the SAE in."""
        seen: list[Pass] = []
        downstream: dict[str, Tensor] = {}

        def replace(x: Tensor, hook: HookPoint) -> Tensor:
            seen.append(self.at_site(x))
            return seen[0].x_hat

        def keep(x: Tensor, hook: HookPoint) -> None:
            downstream[hook.name] = x

        hooks = [(self.site, replace), *((site, keep) for site in self.loss.downstream_sites)]
        logits = self.model.run_with_hooks(tokens, fwd_hooks=hooks)
        return Pass(seen[0].x, seen[0].c, seen[0].x_hat, downstream, logits)
