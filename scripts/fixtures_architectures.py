"""Writes what PyTorch computes of every architecture of dictionary: codes, reconstructions, gradients by autograd.

    python3 -m venv target/venv-fixtures
    target/venv-fixtures/bin/pip install -r scripts/requirements-fixtures.txt
    target/venv-fixtures/bin/python scripts/fixtures_architectures.py

Versions and seeds as in `fixtures.py`. Written to `crates/sae-nn/tests/fixtures/architectures.safetensors` in f64: `x`
[N, D], and for every case `<case>.<name>` with the parameters (`w_enc`, `b_enc`, `w_dec`, `b_dec`, and of transcoders
`w_skip`), the code `c` [N, F], the reconstruction of every prefix `x_hat_<i>` [N, E], and, of the loss

    sum_i (weights_i * x_hat_i).sum() + 3 * mean_n ||c_n||_p,   weights_i [N, E] stored too,

the gradients `grad_<parameter>` and `grad_x`; p is 1, or 0 for the number of active features. Of the cases that choose
features of the batch together, `smallest` is the smallest activation that was kept.

The definitions are those of `sae-config::architecture`: TopK and BatchTopK after a ReLU, decoder rows at unit length,
Matryoshka's prefixes at shares of the dictionary. JumpReLU's estimated gradients are functions of their own
(`torch.autograd.Function`) after Rajamanoharan et al. 2024, equations 11 and 12.

Legend: N tokens, D width read, E width written, F dictionary elements.
"""

from dataclasses import dataclass

import torch
from fixtures import ROOT, randn, save, seeded
from torch import Tensor

OUT = ROOT / "crates/sae-nn/tests/fixtures/architectures.safetensors"
N, D, F = 11, 6, 40


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    k: int = F
    prefixes: tuple[float, ...] = (1.0,)
    width: int = D
    skip: bool = False
    p: int = 1


CASES = [
    Case("relu", "relu"),
    Case("topk", "topk", k=5),
    Case("batch_topk", "batch_topk", k=5),
    Case("matryoshka", "batch_topk", k=7, prefixes=(0.25, 0.5, 1.0)),
    Case("transcoder", "relu", width=9, skip=True),
    Case("topk_transcoder", "topk", k=4, width=4),
    Case("jumprelu", "jumprelu", p=0),
    Case("jumprelu_norm", "jumprelu", p=1, width=5, skip=True),
]

BANDWIDTH = 0.8


def rectangle(x: Tensor) -> Tensor:
    return (x.abs() < 0.5).to(x)


class Step(torch.autograd.Function):
    """1 where pre is above the threshold."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
        pre, threshold = ctx.saved_tensors
        near = rectangle((pre - threshold) / BANDWIDTH)
        return None, (-near / BANDWIDTH * grad).sum(dim=0)


class Jump(torch.autograd.Function):
    """pre where it is above the threshold, 0 elsewhere."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        pre, threshold = ctx.saved_tensors
        near = rectangle((pre - threshold) / BANDWIDTH)
        return (pre > threshold) * grad, (-threshold * near / BANDWIDTH * grad).sum(dim=0)


def code(case: Case, features: Tensor) -> Tensor:
    """Which of the features [N, F], none below 0, are kept."""
    if case.kind == "relu":
        return features
    if case.kind == "topk":
        found = features.topk(case.k, dim=-1)
        return torch.zeros_like(features).scatter(-1, found.indices, found.values)
    flat = features.flatten()
    found = flat.topk(min(case.k * N, flat.numel()))
    return torch.zeros_like(flat).scatter(0, found.indices, found.values).view_as(features)


def main() -> None:
    stored = {"x": randn(seeded(0), N, D)}
    for seed, case in enumerate(CASES, start=1):
        gen = seeded(seed)
        x = stored["x"].clone().requires_grad_()
        parameters = {
            "w_enc": randn(gen, F, D),
            "b_enc": randn(gen, F, scale=0.3),
            "w_dec": randn(gen, F, case.width),
            "b_dec": randn(gen, case.width, scale=0.3),
        }
        if case.skip:
            parameters["w_skip"] = randn(gen, case.width, D)
        if case.kind == "jumprelu":
            parameters["log_threshold"] = randn(gen, F, scale=0.5)
        for parameter in parameters.values():
            parameter.requires_grad_()
        w_dec = parameters["w_dec"]
        rows = w_dec / w_dec.norm(dim=1, keepdim=True)
        pre = x @ parameters["w_enc"].T + parameters["b_enc"]
        if case.kind == "jumprelu":
            threshold = parameters["log_threshold"].exp()
            c = Jump.apply(pre, threshold)
        else:
            c = code(case, pre.relu())
        size = Step.apply(pre, threshold) if case.p == 0 else c
        loss = 3 * size.sum(dim=-1).mean()
        for index, share in enumerate(case.prefixes):
            end = round(share * F)
            x_hat = c[:, :end] @ rows[:end] + parameters["b_dec"]
            if case.skip:
                x_hat = x_hat + x @ parameters["w_skip"].T
            weights = randn(gen, N, case.width)
            loss = loss + (weights * x_hat).sum()
            stored[f"{case.name}.x_hat_{index}"] = x_hat
            stored[f"{case.name}.weights_{index}"] = weights
        loss.backward()
        stored[f"{case.name}.c"] = c
        stored[f"{case.name}.grad_x"] = x.grad
        if case.kind == "batch_topk":
            stored[f"{case.name}.smallest"] = c[c > 0].min()
        for name, parameter in parameters.items():
            stored[f"{case.name}.{name}"] = parameter
            stored[f"{case.name}.grad_{name}"] = parameter.grad
    save(OUT, stored)


if __name__ == "__main__":
    main()
