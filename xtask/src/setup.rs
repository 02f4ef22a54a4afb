//! `cargo xtask setup`: libtorch into `.libtorch/`, from hash-pinned wheels.
//!
//! The wheel's `libtorch.so` needs the CUDA libraries; what is linked here is its CPU part alone, so that one binary runs
//! with and without CUDA. The CUDA libraries, where they are wanted, stand in a folder beside it, and are opened at
//! start-up by `sae_model::device`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::tool;

/// Install libtorch into .libtorch/ (530 MB to fetch, 560 MB on disk); does nothing where it is there
///
/// LIBTORCH or LIBTORCH_USE_PYTORCH=1 in the environment are used as they are.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// With the CUDA libraries (about 2 GB more to fetch, 3 GB on disk)
    #[arg(long)]
    cuda: bool,
    /// Print the .cargo/config.toml of a project elsewhere that uses this libtorch, and stop
    #[arg(long)]
    print_config: bool,
}

/// The wheels, with the hashes of the files for Linux on x86-64. libtorch's CPU library links the two small ones.
const WHEELS: &str = "\
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
";

/// What libtorch_cuda.so links beside those, in the versions that the torch wheel's metadata asks for.
const CUDA_WHEELS: &str = "\
nvidia-cublas==13.1.0.3 --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171
nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cudnn-cu13==9.19.0.56 --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf
nvidia-cufft==12.0.0.61 --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
nvidia-cufile==1.15.1.6 --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
nvidia-cusolver==12.0.4.66 --hash=sha256:0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112
nvidia-cusparse==12.6.3.3 --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
nvidia-cusparselt-cu13==0.8.0 --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd
nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
nvidia-nvjitlink==13.0.88 --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
nvidia-nvshmem-cu13==3.4.5 --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
nvidia-nvtx==13.0.85 --hash=sha256:4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4
";

/// Libraries that are not linked; they go to `torch/cuda`, two folders below `.libtorch` as before, so that the run
/// paths inside them still lead to `.libtorch/nvidia`.
const CUDA_LIBRARIES: &[&str] =
    &["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libc10_cuda.so"];

/// Bumped when what setup leaves behind changes.
const STAMP: &str = "torch 2.11.0, layout 1";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if provided() {
        tool::say("LIBTORCH or LIBTORCH_USE_PYTORCH is set: used as it is");
    } else {
        install(arguments.cuda)?;
    }
    if arguments.print_config { tool::print(config()?.trim_end()) } else { Ok(()) }
}

/// What a project elsewhere needs to build against libtorch, and for its binaries to find it.
pub(crate) fn config() -> anyhow::Result<String> {
    let libtorch = match std::env::var_os("LIBTORCH") {
        Some(path) if provided() => PathBuf::from(path),
        None if provided() => bail!(
            "with LIBTORCH_USE_PYTORCH=1 there is no fixed place: set LIBTORCH to the folder that Python's torch is in"
        ),
        _ => home().join("torch"),
    };
    let libtorch = std::path::absolute(libtorch)?;
    if !libtorch.join("lib").is_dir() {
        bail!("{} has no folder `lib`: it is no libtorch", libtorch.display());
    }
    let text = |text: String| toml::Value::String(text).to_string();
    let path = |folder| text(format!("link-arg=-Wl,-rpath,{}/{folder}", libtorch.display()));
    let paths = ["lib", "cuda"].map(|folder| format!("  \"-C\", {},\n", path(folder))).concat();
    Ok(format!(
        "# libtorch, for the crates that use it: where it is built against, and where binaries find it.\n[env]\nLIBTORCH = \
         {}\n\n[build]\nrustflags = [\n{paths}]\nrustdocflags = [\n{paths}]\n",
        text(libtorch.display().to_string())
    ))
}

/// Sets libtorch up where nobody has.
pub(crate) fn ensure() -> anyhow::Result<()> {
    if provided() { Ok(()) } else { install(false) }
}

/// Whether the user brings libtorch. Cargo sets LIBTORCH to our own folder (`.cargo/config.toml`); that is not a user's.
pub(crate) fn provided() -> bool {
    let own = home().join("torch");
    let brought = std::env::var_os("LIBTORCH").is_some_and(|path| Path::new(&path) != own);
    brought || std::env::var_os("LIBTORCH_USE_PYTORCH").is_some_and(|value| value == "1")
}

fn home() -> PathBuf {
    tool::root().join(".libtorch")
}

fn install(cuda: bool) -> anyhow::Result<()> {
    let home = home();
    let stamped = |name: &str| {
        std::fs::read_to_string(home.join(name)).is_ok_and(|text| text.trim() == STAMP)
    };
    if stamped("stamp") && (!cuda || stamped("stamp-cuda")) {
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "setup knows the wheels for Linux on x86-64 only: install PyTorch 2.11.0 yourself and set \
             LIBTORCH_USE_PYTORCH=1, or LIBTORCH to a libtorch 2.11.0"
        );
    }
    let lock = File::create(tool::root().join(".libtorch.lock"))?;
    lock.lock().context("cannot lock .libtorch.lock")?;
    if stamped("stamp") && (!cuda || stamped("stamp-cuda")) {
        return Ok(());
    }
    // Everything is made in a folder of its own and moved into place at the end: an interruption leaves nothing broken.
    let fresh = tool::root().join(".libtorch.partial");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).context("cannot remove an earlier, interrupted set-up")?;
    }
    std::fs::create_dir_all(&fresh).context("cannot create .libtorch.partial")?;
    let size = if cuda { "530 MB, and about 2 GB of CUDA libraries" } else { "530 MB" };
    tool::say(&format!("fetching libtorch 2.11.0 ({size})"));
    fetch(&fresh, cuda)?;
    arrange(&fresh, cuda)?;
    std::fs::write(fresh.join("stamp"), STAMP)?;
    if cuda {
        std::fs::write(fresh.join("stamp-cuda"), STAMP)?;
    }
    if home.exists() {
        std::fs::remove_dir_all(&home).context("cannot replace .libtorch")?;
    }
    std::fs::rename(&fresh, &home).context("cannot move .libtorch into place")?;
    tool::say("libtorch is in .libtorch");
    Ok(())
}

/// `pip install --target` for a fixed platform and Python version, whatever Python runs pip; every file is checked
/// against its hash. One call for all: a second one would replace the folder that the wheels share.
fn fetch(target: &Path, cuda: bool) -> anyhow::Result<()> {
    let requirements = target.join("requirements.txt");
    let wheels = if cuda { [WHEELS, CUDA_WHEELS].concat() } else { WHEELS.to_owned() };
    std::fs::write(&requirements, wheels)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args(["--no-cache-dir", "--no-compile", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--implementation", "cp", "--python-version", "3.11"]);
    for glibc in (17..=28).rev() {
        pip.args(["--platform", &format!("manylinux_2_{glibc}_x86_64")]);
    }
    pip.args(["--platform", "manylinux2014_x86_64"]);
    pip.arg("--target").arg(target).args(["--require-hashes", "--requirement"]).arg(&requirements);
    tool::run(&mut pip).context(
        "libtorch is fetched with python3 and its pip, which are needed; the same command tries again",
    )
}

/// Keeps `torch/lib`, `torch/include` and the CUDA libraries, and makes `libtorch.so` stand for the CPU part alone.
fn arrange(home: &Path, cuda: bool) -> anyhow::Result<()> {
    keep(home, &["torch", "nvidia"])?;
    keep(&home.join("torch"), &["lib", "include"])?;
    let lib = home.join("torch/lib");
    let aside = home.join("torch/cuda");
    std::fs::create_dir_all(&aside)?;
    for name in CUDA_LIBRARIES {
        std::fs::rename(lib.join(name), aside.join(name))
            .with_context(|| format!("the torch wheel has no {name}"))?;
    }
    std::fs::remove_file(lib.join("libtorch_python.so"))
        .context("the torch wheel has no libtorch_python.so")?;
    if !cuda {
        std::fs::remove_dir_all(&aside)?;
    }
    // A linker script: whoever links libtorch gets its CPU part.
    std::fs::write(lib.join("libtorch.so"), "INPUT(libtorch_cpu.so)\n")?;
    Ok(())
}

/// Removes everything in a folder but these.
fn keep(folder: &Path, names: &[&str]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| names.iter().any(|keep| name == *keep)) {
            continue;
        }
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CUDA_LIBRARIES, arrange};

    #[test]
    fn a_wheel_is_cut_down_to_its_cpu_part() {
        let home = std::env::temp_dir().join(format!("xtask-setup-{}", std::process::id()));
        for cuda in [false, true] {
            let lib = home.join("torch/lib");
            for folder in ["torch/lib", "torch/include", "torch/nn", "nvidia", "bin"] {
                std::fs::create_dir_all(home.join(folder)).unwrap();
            }
            for name in CUDA_LIBRARIES.iter().chain(&[
                "libtorch.so",
                "libtorch_cpu.so",
                "libtorch_python.so",
            ]) {
                std::fs::write(lib.join(name), "x").unwrap();
            }
            arrange(&home, cuda).unwrap();
            let there = |path: &str| home.join(path).exists();
            assert!(
                there("torch/lib/libtorch_cpu.so") && there("torch/include") && there("nvidia")
            );
            assert!(!there("torch/nn") && !there("bin") && !there("torch/lib/libtorch_cuda.so"));
            assert_eq!(there("torch/cuda/libtorch_cuda.so"), cuda);
            let script = std::fs::read_to_string(lib.join("libtorch.so")).unwrap();
            assert_eq!(script.trim(), "INPUT(libtorch_cpu.so)");
            std::fs::remove_dir_all(&home).unwrap();
        }
    }
}
