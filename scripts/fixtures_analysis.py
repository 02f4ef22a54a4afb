"""Writes what numpy, scipy and scikit-learn compute of the quantities that `sae-analysis` computes.

    python3 -m venv target/venv-fixtures
    target/venv-fixtures/bin/pip install -r scripts/requirements-fixtures.txt
    target/venv-fixtures/bin/python scripts/fixtures_analysis.py

Versions: Python 3.11 or later; numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1. Those actually used stand under
`versions` in every file. Every file has a random generator of its own with a fixed seed; on one machine the output is
the same byte for byte.

Written below `crates/sae-analysis/tests/fixtures/`:

    bootstrap.json      BCa intervals of `scipy.stats.bootstrap`, its resampled statistics, bias and acceleration
    similarity.json     largest cosines within and across dictionaries, of scikit-learn; a histogram of numpy

The interval of many resamples (`limit`) is the median of several runs of scipy, each of 100 000 resamples.
"""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import bootstrap
from scipy.stats._resampling import _bca_interval, _percentile_of_score
from sklearn.metrics.pairwise import cosine_similarity

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "crates/sae-analysis/tests/fixtures"
LIBRARIES = ("numpy", "scipy", "scikit-learn")

Array = NDArray[np.float64]
Statistic = Callable[..., Any]


def save(name: str, content: dict[str, Any]) -> None:
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": versions, **content}, allow_nan=False) + "\n")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.1f} kB")


# ---- Bootstrap ------------------------------------------------------------------------------------------------------


def mean(sample: Array, axis: int = -1) -> Array:
    return np.mean(sample, axis=axis)


def difference_of_means(a: Array, b: Array, axis: int = -1) -> Array:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


def bootstrap_case(name: str, samples: Sequence[Array], confidence: float, gen: np.random.Generator) -> dict[str, Any]:
    statistic: Statistic = mean if len(samples) == 1 else difference_of_means

    def run(n_resamples: int) -> Any:
        # In batches: otherwise scipy holds all resamples at once.
        return bootstrap(
            samples, statistic, n_resamples=n_resamples, confidence_level=confidence, batch=1000, rng=gen
        )

    few = run(500)
    value = statistic(*samples)
    resampled = few.bootstrap_distribution
    acceleration = _bca_interval(
        samples, statistic, axis=-1, alpha=(1 - confidence) / 2, theta_hat_b=resampled, batch=None, xp=np
    )[2]
    percentile = _percentile_of_score(resampled, np.asarray(value)[None], axis=-1, xp=np)
    many = [run(100_000) for _ in range(5)]
    return {
        "name": name,
        "a": samples[0].tolist(),
        "b": samples[1].tolist() if len(samples) > 1 else None,
        "confidence": confidence,
        "value": float(value),
        "acceleration": float(acceleration),
        "resampled": resampled.tolist(),
        "bias": float(np.squeeze(ndtri(percentile))),
        "interval": [float(end) for end in few.confidence_interval],
        "standard_error": float(few.standard_error),
        "limit": [float(np.median([end[i] for end in (run.confidence_interval for run in many)])) for i in (0, 1)],
        "limit_standard_error": float(np.median([run.standard_error for run in many])),
    }


def write_bootstrap() -> None:
    gen = np.random.default_rng(1)
    skewed = gen.exponential(size=40)
    samples = {
        "normal": ([gen.normal(0.3, 0.1, size=50)], 0.95),
        "skewed": ([skewed], 0.95),
        "skewed, 90 %": ([skewed], 0.9),
        "difference": ([gen.normal(0.5, 0.2, size=30), gen.exponential(0.4, size=45)], 0.95),
        "difference of unequal sizes, 99 %": ([gen.gamma(2.0, size=8), gen.normal(1.0, 3.0, size=60)], 0.99),
    }
    points = [-6.0, -3.0, -1.959963984540054, -1.0, -0.1, 0.0, 1e-6, 0.5, 1.6448536269514722, 2.5, 5.0]
    save(
        "bootstrap.json",
        {
            "cases": [bootstrap_case(name, data, level, gen) for name, (data, level) in samples.items()],
            "normal": [{"z": z, "p": float(ndtr(z))} for z in points],
        },
    )


# ---- Similarity -----------------------------------------------------------------------------------------------------


def write_similarity() -> None:
    gen = np.random.default_rng(2)
    # Sizes that are no multiples of anything; one row of zeros, one repeated, one opposite to another.
    a = gen.normal(size=(23, 7)).astype(np.float32)
    b = gen.normal(size=(11, 7)).astype(np.float32)
    a[5] = 0.0
    a[9] = 3.0 * a[2]
    b[4] = -0.5 * a[7]
    within = cosine_similarity(a.astype(np.float64))
    np.fill_diagonal(within, -np.inf)
    across = cosine_similarity(a.astype(np.float64), b.astype(np.float64))
    largest = within.max(axis=1)
    counts, edges = np.histogram(largest, bins=10, range=(0.0, 1.0))
    save(
        "similarity.json",
        {
            "columns": 7,
            "a": [float(x) for x in a.ravel()],
            "b": [float(x) for x in b.ravel()],
            "within_a": largest.tolist(),
            "a_to_b": across.max(axis=1).tolist(),
            "b_to_a": across.max(axis=0).tolist(),
            "mean_within_a": float(largest.mean()),
            "edges": edges.tolist(),
            "counts": counts.tolist(),
        },
    )


if __name__ == "__main__":
    write_bootstrap()
    write_similarity()
