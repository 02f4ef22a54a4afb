"""What this project does on a GPU: is it right, how fast is it, what fits. Needs the binary `sae` and a Python with torch.

    python3 scripts/gpu.py --sae target/release/sae --out OUT                  # every part
    python3 scripts/gpu.py --sae target/release/sae --out OUT --part table     # one
    python3 scripts/gpu.py --sae target/release/sae --out OUT --device cpu --smoke

Every part takes less than 9 minutes, and writes `OUT/PART.json` and `OUT/PART.md` as soon as it has a result:

    agreement   the GPU's kernels beside libtorch's operations in double precision (`sae bench agreement`)
    correct     20 steps of every type, precision and architecture on the GPU and on the CPU; the same bits twice, resumed
                and in a bank; `sae eval`; the activations that `sae analyze` measures
    table       training steps beside PyTorch (`peer/best.py`; `peer/train.py` where transformer-lens is installed)
    limits      the largest bank and batch that fit, and what an error of memory says
    paper       a run of the paper's shape by `sae train`, for some minutes
    kernels     the GPU's kernels by time, of both sides

The libraries of the Python that runs this are those that `sae` opens. `--python` is another one for the peers. Tables
go to docs/gpu.md by hand, with the card, the date and the commit.
"""

import argparse
import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TYPES = {
    "local": {"sparsity": {"coeff": 0.8}, "local": {"coeff": 1.0}},
    "e2e": {"sparsity": {"coeff": 0.8}, "kl": {"coeff": 1.0}},
    "e2e+ds": {"sparsity": {"coeff": 4.0}, "kl": {"coeff": 0.5}, "downstream": {"total_coeff": 2.5}},
}
ARCHITECTURES: dict[str, Any] = {
    "topk": {"topk": {"k": 16}},
    "batch_topk": {"batch_topk": {"k": 16}},
    "matryoshka": {"matryoshka": {"k": 16}},
    "jumprelu": {"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.5}},
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "family": "gpt2", "layers": 12, "d_model": 768, "heads": 12, "vocab": 50257, "batch": 16, "context": 128,
        "layer": 6, "expansion": 8, "active": 50,
    },
    "gpt2-paper": {
        "family": "gpt2", "layers": 12, "d_model": 768, "heads": 12, "vocab": 50257, "batch": 16, "context": 1024,
        "layer": 6, "expansion": 60, "active": 50,
    },
    "smoke": {
        "family": "gpt2", "layers": 3, "d_model": 64, "heads": 4, "vocab": 512, "batch": 2, "context": 32, "layer": 1,
        "expansion": 8, "active": 20,
    },
}  # fmt: skip
# On a GPU, products in f32 are TF32 unless this variable says otherwise.
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"


@dataclass(frozen=True)
class Setting:
    sae: Path
    python: str
    out: Path
    device: str
    smoke: bool
    shapes: list[str]
    types: list[str]
    precisions: list[str]
    sides: list[str]
    minutes: float
    active: int | None

    def environment(self, precision: str) -> dict[str, str]:
        """Where `sae` finds libtorch, and which products it takes."""
        own = dict(os.environ)
        libraries = torch_libraries()
        own["LD_LIBRARY_PATH"] = ":".join([*libraries, own.get("LD_LIBRARY_PATH", "")])
        own[TF32] = "0" if precision == "f32" else "1"
        return own


def torch_libraries() -> list[str]:
    """The folders of libtorch and of the CUDA libraries beside it."""
    import importlib.util

    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return []
    torch = Path(found.origin).parent
    return [str(torch / "lib"), *(str(path) for path in sorted(torch.parent.glob("nvidia/*/lib")))]


def save(setting: Setting, part: str, rows: list[dict[str, Any]], text: str) -> None:
    (setting.out / f"{part}.json").write_text(json.dumps(rows, indent=1))
    (setting.out / f"{part}.md").write_text(text)
    print(text, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [list(columns), ["---"] * len(columns), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# ---- agreement


def agreement(setting: Setting) -> None:
    """In f32 without TF32; what is lowered is lowered to bf16."""
    command = [str(setting.sae), "--device", setting.device, "bench", "agreement"]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=setting.environment("f32"), capture_output=True, text=True
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    text = "".join(f"{row['difference']:.1e} <= {row['bound']:.0e}  {row['what']}\n" for row in rows)
    save(
        setting,
        "agreement",
        rows,
        text + done.stderr[-800:] + ("" if done.returncode == 0 else "\nNOT WITHIN BOUNDS\n"),
    )


# ---- correct


def configuration(loss: dict[str, Any], precision: str, **more: Any) -> dict[str, Any]:
    """A run on the embedded model: 20 steps of 16 windows."""
    run = {
        "model": {"path": str(Path("data/rust-lm").absolute())},
        "data": {"train": str(Path("data/corpus/train").absolute()), "context_length": 128, "shuffle_buffer": 64, "seed": 0},
        "sae": {"sites": ["blocks.3.hook_resid_pre"], "expansion": 16, "seed": 0},
        "loss": loss,
        "train": {
            "n_samples": 320, "batch_size": 16, "lr": 1e-3, "max_grad_norm": 10.0, "precision": precision,
            "schedule": {"kind": "cosine", "warmup_samples": 32},
        },
        "eval": {"data": str(Path("data/corpus/validation").absolute()), "n_samples": 32, "alive_tokens": 4_096},
        "log": {"every_n_steps": 1},
    }  # fmt: skip
    for key, value in more.items():
        section, name = key.split("__")
        run[section][name] = value
    return run


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {toml(own)}' for key, own in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(own) for own in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


@dataclass(frozen=True)
class Case:
    """Some run of `sae train`."""

    name: str
    device: str
    precision: str  # f64, f32, tf32 or bf16
    config: dict[str, Any]

    def folder(self, setting: Setting) -> Path:
        return setting.out / "runs" / f"{self.name}-{self.device}-{self.precision}".replace(":", "")


def train(setting: Setting, case: Case, limit: float | None = None) -> str | None:
    """Trains; the error, where there is one. After `limit` seconds it is ended."""
    folder = case.folder(setting)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".toml")
    config.write_text("\n".join(f"{key} = {toml(value)}" for key, value in case.config.items()) + "\n")
    return sae(setting, case, ["train", str(config), "--out", str(folder)], limit)


def sae(setting: Setting, case: Case, arguments: list[str], limit: float | None = None) -> str | None:
    command = [str(setting.sae), *arguments, "--device", case.device, "--quiet"]
    environment = {**setting.environment(case.precision), "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"ended after {limit} s"
    if done.returncode != 0:
        return (done.stderr or done.stdout).strip()[-1500:]
    case.folder(setting).parent.mkdir(parents=True, exist_ok=True)
    case.folder(setting).with_suffix(".out").write_text(done.stdout)
    return None


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> bytes:
    """The tensors of all dictionaries of a run."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("sae/*/*.safetensors")))


def largest(steps: list[dict[str, float]], reference: list[dict[str, float]], key: str) -> float:
    """The largest relative difference of a metric over all steps."""
    if len(steps) != len(reference):
        return math.nan
    pairs = [(own[key], its[key]) for own, its in zip(steps, reference, strict=True) if key in its]
    return max((abs(own - its) / max(abs(its), 1e-30) for own, its in pairs), default=math.nan)


def lowered(precision: str) -> str:
    """The precision as a run's configuration has it."""
    return "f32" if precision == "tf32" else precision


def correct(setting: Setting) -> None:
    gpu = setting.device
    on_gpu = ["f64", "f32", "tf32", "bf16"]
    if gpu == "cpu":  # Whose products in bf16 are slow.
        on_gpu.remove("bf16")
    cases = []
    for kind, loss in TYPES.items():
        for device, precisions in (("cpu", ["f64", "f32"]), (gpu, on_gpu)):
            cases += [Case(kind, device, own, configuration(loss, lowered(own))) for own in precisions]
    e2e = TYPES["e2e"]
    for name, architecture in ARCHITECTURES.items():
        for device in ("cpu", gpu):
            cases += [Case(name, device, "f32", configuration(e2e, "f32", sae__architecture=architecture))]
        if "bf16" in on_gpu:
            cases += [Case(name, gpu, "bf16", configuration(e2e, "bf16", sae__architecture=architecture))]
    variants = {
        "transcoders": {
            "sae__sites": ["blocks.2.hook_mlp_out", "blocks.3.hook_mlp_out"],
            "sae__reads": ["blocks.2.mlp.hook_in", "blocks.3.mlp.hook_in"], "sae__skip": True,
        },
        "sites": {"sae__sites": ["blocks.1.hook_resid_pre", "blocks.3.hook_mlp_out", "blocks.4.hook_resid_pre"]},
        "recomputed": {"train__recompute": True},
        "accumulated": {"train__batch_size": 8, "train__effective_batch_size": 16},
        "p-half": {"loss__sparsity": {"coeff": 0.1, "p": 0.5}},
        # So few active features that they are worked on one by one.
        "few": {"sae__architecture": {"topk": {"k": 8}}},
        "few-sites": {
            "sae__architecture": {"topk": {"k": 8}}, "loss__sparsity": {"coeff": 0.1, "p": 0.5},
            "sae__sites": ["blocks.1.hook_resid_pre", "blocks.3.hook_mlp_out", "blocks.4.hook_resid_pre"],
        },
    }  # fmt: skip
    for name, more in variants.items():
        loss = dict(TYPES["e2e+ds"])
        cases += [Case(name, device, "f32", configuration(dict(loss), "f32", **more)) for device in ("cpu", gpu)]
    for precision in on_gpu[1::2]:
        cases += [Case("again", gpu, precision, configuration(e2e, precision))]
        # The first ten steps, a checkpoint, and the rest: see below.
        half = configuration(e2e, precision, log__checkpoint_every_n_steps=10)
        cases += [Case("resumed", gpu, precision, half)]
    rows: list[dict[str, Any]] = []
    precisions = on_gpu[1::2]
    work: list[tuple[str, Callable[[], str | None]]] = [
        (f"{case.name}, {case.device}, {case.precision}", lambda case=case: train(setting, case)) for case in cases
    ]
    work += [(f"bank, {own}", lambda own=own: bank(setting, own)) for own in precisions]
    together(setting, work, rows)
    # What needs the runs.
    work = [(f"resumed, {own}", lambda own=own: resumed(setting, own)) for own in precisions]
    for device in {"cpu", gpu}:
        work.append((f"evaluated, {device}", lambda device=device: evaluated(setting, device)))
        work.append((f"analyzed, {device}", lambda device=device: analyzed(setting, device)))
    together(setting, work, rows)
    compare_runs(setting, cases, rows)
    for precision in precisions:
        alone = Case("e2e", gpu, precision, {}).folder(setting)
        others = {name: Case(name, gpu, precision, {}).folder(setting) for name in ("again", "resumed")}
        others["bank"] = bank_folder(setting, precision) / "e2e"
        same = {name: weights(folder) == weights(alone) for name, folder in others.items()}
        rows.append({"run": "same bits", "precision": precision, "bytes": len(weights(alone)), **same})
    compare_numbers(rows, "sae eval", [
        json.loads(evaluation.read_text()) if (evaluation := evaluated_file(setting, device)).exists() else {}
        for device in ("cpu", gpu)
    ])  # fmt: skip
    compare_numbers(rows, "sae analyze", [
        {kind: json.loads(path.read_text())["values"] for kind in TYPES
         if (path := analyzed_folder(setting, device) / kind / "activations.json").exists()}
        for device in ("cpu", gpu)
    ])  # fmt: skip
    save(setting, "correct", rows, correct_text(rows))


def together(setting: Setting, work: list[tuple[str, Callable[[], str | None]]], rows: list[dict[str, Any]]) -> None:
    """Does pieces of work at the same time; a row for each that fails."""
    with ThreadPoolExecutor(2 if setting.smoke else 14) as pool:
        errors = list(pool.map(lambda piece: piece[1](), work))
    rows += [{"run": name, "error": error} for (name, _), error in zip(work, errors, strict=True) if error is not None]


def compare_runs(setting: Setting, cases: list[Case], rows: list[dict[str, Any]]) -> None:
    """Every run beside that of the CPU: in f64 where there is one."""
    for case in cases:
        precise = Case(case.name, "cpu", "f64", {}).folder(setting)
        if not precise.joinpath("summary.json").exists():
            precise = Case(case.name, "cpu", "f32", {}).folder(setting)
        own = case.folder(setting)
        if own == precise or not all(folder.joinpath("summary.json").exists() for folder in (own, precise)):
            continue
        steps, reference = metrics(own), metrics(precise)
        evaluation, expected = (json.loads((folder / "summary.json").read_text()) for folder in (own, precise))
        row = {"run": case.name, "device": case.device, "precision": case.precision, "beside": precise.name}
        for key in ("loss", "kl", "l0", "grad_norm"):
            row[key] = largest(steps, reference, key)
        for key in ("ce_increase", "l0"):
            row[f"evaluation_{key}"] = evaluation["evaluation"][key] - expected["evaluation"][key]
        rows.append(row)


def resumed(setting: Setting, precision: str) -> str | None:
    """Takes the last ten of the steps of `resumed` again, from its checkpoint."""
    config = configuration(TYPES["e2e"], precision, log__checkpoint_every_n_steps=10)
    case = Case("resumed", setting.device, precision, config)
    folder = case.folder(setting)
    kept = ("checkpoints", "config.toml", "metrics.jsonl", "inputs.json")
    for path in [path for path in folder.iterdir() if path.name not in kept]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "checkpoints/step_20", ignore_errors=True)
    return train(setting, case)


def bank_folder(setting: Setting, precision: str) -> Path:
    return setting.out / "runs" / f"bank-{precision}"


def bank(setting: Setting, precision: str) -> str | None:
    """The three types as one job of a manifest, as launchers run it."""
    runs = [{"id": kind, "folder": kind, "config": configuration(loss, precision)} for kind, loss in TYPES.items()]
    folder = bank_folder(setting, precision)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"sweep": folder.name, "jobs": [{"runs": runs}]}))
    case = Case("bank-train", setting.device, precision, {})
    return sae(setting, case, ["train", "--manifest", str(manifest), "--job", "0"])


def evaluated_file(setting: Setting, device: str) -> Path:
    return Case("evaluated", device, "f32", {}).folder(setting).with_suffix(".out")


def evaluated(setting: Setting, device: str) -> str | None:
    """The SAEs of the GPU's `e2e` in f32, evaluated on a device."""
    folder = Case("e2e", setting.device, "f32", {}).folder(setting)
    return sae(setting, Case("evaluated", device, "f32", {}), ["eval", str(folder)])


def analyzed_folder(setting: Setting, device: str) -> Path:
    return setting.out / "runs" / f"analyzed-{device}".replace(":", "")


def analyzed(setting: Setting, device: str) -> str | None:
    """The activations that `sae analyze` measures, on a device: linear algebra among them."""
    copy = analyzed_folder(setting, device)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bank_folder(setting, "f32"), copy)
    return sae(setting, Case("analyze", device, "f32", {}), ["analyze", str(copy)])


def compare_numbers(rows: list[dict[str, Any]], name: str, found: list[Any]) -> None:
    """The CPU's numbers and the GPU's, by the largest relative difference."""

    def numbers(value: Any, key: str = "") -> dict[str, float]:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        below = {name: own for part, all_ in parts for name, own in numbers(all_, f"{key}.{part}").items()}
        return {key: float(value)} if isinstance(value, int | float) else below

    expected, own = (numbers(one) for one in found)
    row: dict[str, Any] = {"run": name, "numbers": len(expected)}
    if expected and expected.keys() == own.keys():
        worst = max(expected, key=lambda key: abs(own[key] - expected[key]) / max(abs(expected[key]), 1e-3))
        row |= {"worst": worst, "cpu": expected[worst], "gpu": own[worst]}
    rows.append(row)


def correct_text(rows: list[dict[str, Any]]) -> str:
    columns = ["run", "device", "precision", "beside", "loss", "kl", "l0", "grad_norm"]
    columns += ["evaluation_ce_increase", "evaluation_l0"]
    compared = [row for row in rows if "beside" in row]
    text = "Largest relative differences over 20 steps, and differences of the evaluation:\n\n"
    text += table(columns, [[row.get(column, "") for column in columns] for row in compared])
    return text + "\n" + "\n".join(json.dumps(row) for row in rows if "beside" not in row) + "\n"


# ---- table


class Side:
    """A process that takes steps when it is asked to."""

    def __init__(self, setting: Setting, name: str, members: int, shape: dict[str, Any], log: Path) -> None:
        self.name, self.members, precision = name, members, shape["precision"]
        self.began = time.monotonic()
        if name == "sae":
            own = {**shape, "members": members, "precision": lowered(precision)}
            command = [str(setting.sae), "--device", setting.device, "bench", "train", json.dumps(own)]
            environment = setting.environment(precision)
        else:
            script = ROOT / "scripts/peer" / f"{name}.py"
            peer = {**shape, "device": setting.device}
            command = [setting.python, "-B", str(script), json.dumps(peer), "--serve"]
            environment = dict(os.environ)
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True,
            )  # fmt: skip

    def answer(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def measure(self, steps: int) -> dict[str, Any] | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return self.answer()

    def device_gb(self) -> float | None:
        """What the card has given the process, by the driver; both sides keep what they have once needed."""
        command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        try:
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        except (OSError, subprocess.CalledProcessError):
            return None
        mib = [float(line.split(",")[1]) for line in lines if line.split(",")[0].strip() == str(self.process.pid)]
        return mib[0] * 2**20 / 1e9 if mib else None

    def end(self) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()

    def row(self, shape: str, kind: str, precision: str, seconds: float, rounds: int) -> dict[str, Any]:
        """Rounds of about so many seconds."""
        own = {"shape": shape, "type": kind, "precision": precision, "side": self.name, "members": self.members}
        first = self.measure(2)
        if first is None:
            return {**own, "error": self.log.read_text().strip()[-800:]}
        steps = max(2, min(50, round(seconds / first["seconds"][-1])))
        found = [self.measure(steps) for _ in range(rounds)]
        if any(one is None for one in found):
            return {**own, "error": self.log.read_text().strip()[-800:]}
        medians = [statistics.median(one["seconds"]) for one in found if one is not None]
        last = found[-1]
        assert last is not None
        tokens = last["tokens_per_step"] * self.members
        return {
            **own, "tokens_per_second": tokens / statistics.median(medians), "least": tokens / max(medians),
            "most": tokens / min(medians), "step_ms": 1e3 * statistics.median(medians), "device_gb": self.device_gb(),
            "l0": last["l0"], "parts": last.get("parts"),
        }  # fmt: skip


def measured(setting: Setting, shape: str, kind: str, precision: str) -> list[dict[str, Any]]:
    """All sides of a row. They set up at the same time, and are measured one after the other."""
    settings = {**SHAPES[shape], "type": kind, "precision": precision, "warmup_steps": 3, "lr": 1e-5}
    if setting.active is not None:
        settings["active"] = setting.active
    chosen = [(name, int(members or 1)) for name, _, members in (side.partition(":") for side in setting.sides)]
    logs = setting.out / "logs"
    logs.mkdir(exist_ok=True)
    sides = [
        Side(setting, name, members, settings, logs / f"{shape}-{kind}-{precision}-{name}-{members}.log")
        for name, members in chosen
    ]
    rows = []
    seconds, rounds = (0.05, 2) if setting.smoke else (1.0, 3)
    ready = [side.answer() is not None for side in sides]
    for side, is_ready in zip(sides, ready, strict=True):
        if is_ready:
            rows.append(side.row(shape, kind, precision, seconds, rounds))
        else:
            error = side.log.read_text().strip()[-800:]
            rows.append({
                "shape": shape, "type": kind, "precision": precision, "side": side.name, "members": side.members,
                "error": error,
            })  # fmt: skip
    for side in sides:
        side.end()
    return rows


def steps_table(setting: Setting) -> None:
    rows: list[dict[str, Any]] = []
    for shape in setting.shapes:
        for precision in setting.precisions:
            for kind in setting.types:
                rows += measured(setting, shape, kind, precision)
                save(setting, "table", rows, table_text(rows))


def table_text(rows: list[dict[str, Any]]) -> str:
    columns = ["shape", "type", "precision", "side", "members", "tokens_per_second", "least", "most", "step_ms"]
    columns += ["device_gb", "l0"]
    parts = sorted({part for row in rows for part in row.get("parts") or {}})
    lines = []
    for row in rows:
        own = [f"{row[name]:.0f}" if "tokens" in name or name in ("least", "most") else row[name]
               for name in columns if name in row]  # fmt: skip
        lines.append(
            own + [""] * (len(columns) - len(own)) + [(row.get("parts") or {}).get(part, "") for part in parts]
        )
    errors = [f"{row['shape']}, {row['type']}, {row['side']}: {row['error']}" for row in rows if "error" in row]
    return table(columns + parts, lines) + "\n" + "\n".join(errors) + "\n"


# ---- limits


def limits(setting: Setting) -> None:
    """The largest bank of the first shape's `e2e`, and its largest batch."""
    shape = SHAPES[setting.shapes[0]]
    precision = setting.precisions[0]
    rows: list[dict[str, Any]] = []
    for what, sizes in (("members", [5, 8, 12, 16, 24]), ("batch", [16, 32, 48, 64, 96, 128])):
        for size in sizes[:2] if setting.smoke else sizes:
            own = {**shape, "type": "e2e", "precision": precision, "warmup_steps": 1, "lr": 1e-5}
            members = size if what == "members" else 1
            if what == "batch":
                own["batch"] = size
            (setting.out / "logs").mkdir(exist_ok=True)
            side = Side(setting, "sae", members, own, setting.out / "logs" / f"limit-{what}-{size}.log")
            row = side.row(setting.shapes[0], "e2e", precision, 0.5, 1) if side.answer() else None
            side.end()
            error = None if row else side.log.read_text().strip()[-800:]
            rows.append({what: size, **(row or {}), "error": error})
            columns = ["members", "batch", "tokens_per_second", "device_gb", "error"]
            text = table(columns, [[row.get(name, "") for name in columns] for row in rows])
            save(setting, "limits", rows, text)
            if row is None:
                break


# ---- paper


def paper(setting: Setting) -> None:
    """`sae train` on windows of random tokens, from a random GPT-2 in Hugging Face's layout; for some minutes."""
    folder = setting.out / "paper"
    model, data = random_gpt2(setting, folder), random_windows(setting, folder)
    sizes = SHAPES["smoke" if setting.smoke else "gpt2-paper"]
    config = {
        "model": {"path": str(model)},
        "data": {
            "train": str(data), "column": "input_ids", "context_length": sizes["context"], "shuffle_buffer": 1000,
        },
        "sae": {"sites": [f"blocks.{sizes['layer']}.hook_resid_pre"], "expansion": sizes["expansion"]},
        "loss": {"sparsity": {"coeff": 1.5}, "kl": {"coeff": 1.0}},
        "train": {
            "n_samples": windows(setting), "batch_size": sizes["batch"], "lr": 5e-4, "max_grad_norm": 10.0,
            "precision": setting.precisions[0],
            "schedule": {"kind": "cosine", "warmup_samples": windows(setting) // 20, "min_lr_factor": 0.1},
        },
        "eval": {"data": str(data.with_name("validation")), "n_samples": 64, "alive_tokens": 1_000_000},
        "log": {"every_n_steps": 20, "checkpoint_every_n_steps": 500},
    }  # fmt: skip
    rows = [{"precision": setting.precisions[0], **timed(setting, config, sizes["context"])}]
    save(setting, "paper", rows, json.dumps(rows[0], indent=1) + "\n")
    # What is said where memory runs out: 1 024 windows a step.
    config["train"]["batch_size"] = 4 if setting.smoke else 1024
    case = Case("too-large", setting.device, setting.precisions[0], config)
    rows[0]["too_large"] = train(setting, case, limit=0.0 if setting.smoke else 25.0)
    save(setting, "paper", rows, json.dumps(rows[0], indent=1) + "\n")


def timed(setting: Setting, config: dict[str, Any], context: int) -> dict[str, Any]:
    """A run of `sae train` that is ended after some minutes: its rate from the first line of its log to the last."""
    case = Case("paper", setting.device, setting.precisions[0], config)
    run = case.folder(setting)
    run.mkdir(parents=True, exist_ok=True)
    path = run.with_suffix(".toml")
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in config.items()) + "\n")
    command = [str(setting.sae), "train", str(path), "--out", str(run), "--device", setting.device]
    began = time.time()
    with run.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--progress", "lines"], cwd=ROOT, env=setting.environment(setting.precisions[0]), stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        seen: list[tuple[float, dict[str, float]]] = []
        while process.poll() is None and time.time() - began < 60 * setting.minutes:
            time.sleep(0.5)
            lines = metrics(run) if (run / "metrics.jsonl").exists() else []
            if lines and (not seen or lines[-1]["samples"] != seen[-1][1]["samples"]):
                seen.append((time.time(), lines[-1]))
        process.terminate()
        process.wait()
    if len(seen) < 2:
        return {"error": run.with_suffix(".log").read_text()[-800:]}

    def rate(lines: list[tuple[float, dict[str, float]]]) -> float:
        return (lines[-1][1]["samples"] - lines[0][1]["samples"]) * context / (lines[-1][0] - lines[0][0])

    return {
        "tokens": seen[-1][1]["samples"] * context, "seconds": seen[-1][0] - seen[0][0], "tokens_per_second": rate(seen),
        "last_quarter": rate(seen[-max(2, len(seen) // 4) :]), "l0": seen[-1][1]["l0"],
        "first_line_s": seen[0][0] - began, "minutes_for_410M": 410e6 / rate(seen) / 60,
        "end": run.with_suffix(".log").read_text()[-600:],
    }  # fmt: skip


def windows(setting: Setting) -> int:
    """The paper's 400 000."""
    return 2000 if setting.smoke else 400_000


def random_gpt2(setting: Setting, folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    sizes, model = SHAPES["smoke" if setting.smoke else "gpt2-paper"], folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    d, v, t, layers = sizes["d_model"], sizes["vocab"], sizes["context"], sizes["layers"]
    shapes = {"wte.weight": (v, d), "wpe.weight": (t, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    for layer in range(layers):
        own = {
            "ln_1.weight": (d,), "ln_1.bias": (d,), "attn.c_attn.weight": (d, 3 * d), "attn.c_attn.bias": (3 * d,),
            "attn.c_proj.weight": (d, d), "attn.c_proj.bias": (d,), "ln_2.weight": (d,), "ln_2.bias": (d,),
            "mlp.c_fc.weight": (d, 4 * d), "mlp.c_fc.bias": (4 * d,), "mlp.c_proj.weight": (4 * d, d),
            "mlp.c_proj.bias": (d,),
        }  # fmt: skip
        shapes |= {f"h.{layer}.{name}": shape for name, shape in own.items()}
    torch.manual_seed(0)

    def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name.endswith("bias"):
            return torch.zeros(shape)
        return torch.ones(shape) if "ln_" in name else 0.02 * torch.randn(shape)

    tensors = {f"transformer.{name}": value(name, shape) for name, shape in shapes.items()}
    save_file(tensors, str(model / "model.safetensors"))
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": layers, "n_embd": d,
        "n_head": sizes["heads"], "vocab_size": v, "n_positions": t, "n_inner": None, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new", "bos_token_id": v - 1, "eos_token_id": v - 1,
        "tie_word_embeddings": True, "scale_attn_weights": True,
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(config))
    return model


def random_windows(setting: Setting, folder: Path) -> Path:
    """Parquet of windows of random tokens, as the reference's pretokenised data has them; `validation` beside them."""
    import numpy
    import pyarrow
    import pyarrow.parquet

    sizes, rows = SHAPES["smoke" if setting.smoke else "gpt2-paper"], windows(setting)
    generator, context = numpy.random.default_rng(0), sizes["context"]
    for shard in range(5):
        data = folder / ("windows" if shard < 4 else "validation")
        data.mkdir(parents=True, exist_ok=True)
        ids = generator.integers(0, sizes["vocab"], (rows // 4) * context, dtype=numpy.int32)
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ids), context)
        column = column.cast(pyarrow.list_(pyarrow.int32()))
        pyarrow.parquet.write_table(
            pyarrow.table({"input_ids": column}), data / f"{shard}.parquet", compression="none", use_dictionary=False
        )
    return folder / "windows"


# ---- kernels


def kernels(setting: Setting) -> None:
    """Ours by Nsight Compute, which times one kernel after the other; the peer's by PyTorch's profiler."""
    for shape in setting.shapes:
        for kind in setting.types:
            settings = {**SHAPES[shape], "type": kind, "precision": setting.precisions[0], "warmup_steps": 3}
            settings |= {"lr": 1e-5}
            if any(side.startswith("sae") for side in setting.sides):
                own_kernels(setting, shape, kind, settings)
            if "best" in setting.sides:
                found = setting.out / f"kernels-{shape}-{kind}.txt"
                peer = {**settings, "device": setting.device, "measured_steps": 3}
                script = ROOT / "scripts/peer/best.py"
                command = [setting.python, "-B", str(script), json.dumps(peer), "--kernels", str(found)]
                done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
                print(found.read_text() if found.exists() else done.stderr[-800:], flush=True)


# Launches that are not timed: of the set-up and of some steps; and those that are, of more than one step.
SKIPPED_LAUNCHES, TIMED_LAUNCHES = 6000, 1800


def own_kernels(setting: Setting, shape: str, kind: str, settings: dict[str, Any]) -> None:
    precision = settings["precision"]
    own = {**settings, "precision": lowered(precision)}
    command = [
        "ncu", "--clock-control", "none", "--metrics", "gpu__time_duration.sum", "--csv", "--page", "raw",
        "--print-units", "base", "-s", str(SKIPPED_LAUNCHES), "-c", str(TIMED_LAUNCHES), str(setting.sae), "--device",
        setting.device, "bench", "train", json.dumps(own),
    ]  # fmt: skip
    environment = setting.environment(precision)
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, input="40\n", capture_output=True, text=True
    )  # fmt: skip
    (setting.out / f"ncu-{shape}-{kind}.csv").write_text(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    found = [
        (line["Kernel Name"], float(line["gpu__time_duration.sum"].replace(",", "")))
        for line in csv.DictReader(lines)
        if line["ID"]
    ]
    # Adam begins the end of a step: whole steps lie between the first step's first and the last step's.
    ends = [
        at for at, (name, _) in enumerate(found) if name.startswith("adam") and not found[at - 1][0].startswith("adam")
    ]
    if len(ends) < 2:
        print(done.stdout[-600:] + done.stderr[-600:], flush=True)
        return
    steps, between = len(ends) - 1, found[ends[0] : ends[-1]]
    names: dict[str, list[float]] = {}
    for name, nanoseconds in between:
        names.setdefault(name, []).append(nanoseconds / 1e6)
    rows = [
        {"kernel": name, "launches": len(times) / steps, "ms": sum(times) / steps} for name, times in names.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["ms"])
    total = {"kernel": "all", "launches": len(between) / steps, "ms": sum(row["ms"] for row in rows)}
    text = table(
        ["kernel", "launches", "ms"], [[row["kernel"][:150], row["launches"], row["ms"]] for row in [total, *rows]]
    )
    save(setting, f"ncu-{shape}-{kind}", [total, *rows], text)


PARTS: dict[str, Callable[[Setting], None]] = {
    "agreement": agreement,
    "correct": correct, "table": steps_table, "limits": limits, "paper": paper, "kernels": kernels,
}  # fmt: skip


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", type=Path, required=True, help="the binary")
    parser.add_argument("--python", default=sys.executable, help="the peers' interpreter")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="small shapes, to try the script")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["gpt2-paper", "gpt2"])
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--precisions", nargs="+", choices=["f32", "tf32", "bf16"], default=["bf16", "tf32", "f32"])
    parser.add_argument("--sides", nargs="+", default=["sae:1", "sae:5", "best", "train"], help="NAME:MEMBERS")
    parser.add_argument("--active", type=int, help="features a token, instead of the shape's")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the part `paper`")
    own = parser.parse_args()
    out = own.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        own.sae.resolve(), own.python, out, own.device, own.smoke, ["smoke"] if own.smoke else own.shapes, own.types,
        own.precisions, own.sides, 0.2 if own.smoke else own.minutes, own.active,
    )  # fmt: skip
    for part in own.part:
        began = time.monotonic()
        print(f"# {part}", flush=True)
        PARTS[part](setting)
        print(f"# {part}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
