"""Compiles the GPU kernels of `crates/sae-cuda` to PTX, which the driver of a GPU compiles for its card.

    python3 scripts/ptx.py            # writes crates/sae-cuda/kernels/kernels.ptx
    python3 scripts/ptx.py --check    # exit code 1 where that file is not what the source gives

Needs pip and no GPU: NVRTC, NVIDIA's compiler as a library, is installed into `target/nvrtc/` in the version that
libtorch has, and so is the oldest driver that knows its PTX. The file begins with the SHA-256 of the source; a test of the crate compares the two.
"""

import argparse
import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crates/sae-cuda/kernels/kernels.cu"
VERSION = "13.0.88"
# The oldest cards whose products are in bf16: Ampere.
ARCHITECTURE = "compute_80"


def library() -> ctypes.CDLL:
    folder = ROOT / "target/nvrtc" / VERSION
    if not (folder / "nvidia/cu13/lib/libnvrtc.so.13").exists():
        command = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            f"nvidia-cuda-nvrtc=={VERSION}",
        ]
        subprocess.run([sys.executable, *command], check=True)
    lib = folder / "nvidia/cu13/lib"
    for built_in in sorted(lib.glob("libnvrtc-builtins.so*")):
        ctypes.CDLL(str(built_in), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(lib / "libnvrtc.so.13"))


def compiled(source: bytes) -> bytes:
    nvrtc, program = library(), ctypes.c_void_p()

    def check(code: int) -> None:
        if code != 0:
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise SystemExit(f"cannot compile {SOURCE}: {log.value.decode()}")

    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None))
    options = [f"--gpu-architecture={ARCHITECTURE}".encode(), b"--std=c++17"]
    check(nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)))
    size = ctypes.c_size_t()
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, text))
    return text.value


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    source = SOURCE.read_bytes()
    head = f"// SHA-256 of kernels.cu: {hashlib.sha256(source).hexdigest()}\n".encode()
    text, file = head + compiled(source).strip() + b"\n", SOURCE.with_suffix(".ptx")
    if check and (not file.exists() or file.read_bytes() != text):
        raise SystemExit(f"{file} is not what {SOURCE} gives: run scripts/ptx.py")
    if not check:
        file.write_bytes(text)


if __name__ == "__main__":
    main()
