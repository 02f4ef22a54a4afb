//! Hands the commit that is built from to the binary, for the run folders it writes; and where libtorch lies, so that the
//! binary finds it from wherever it is copied to on this machine.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) if git(&["status", "--porcelain"]).is_some_and(|dirty| dirty.is_empty()) => {
            commit
        }
        Some(commit) => format!("{commit}-dirty"),
        None => "unknown".to_owned(),
    };
    println!("cargo::rustc-env=SAE_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH").map(std::path::PathBuf::from) {
        for folder in ["lib", "cuda"] {
            let folder = libtorch.join(folder);
            println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{}", folder.display());
        }
    }
    // A new commit, and an edit that makes the tree differ from it.
    println!("cargo::rerun-if-changed=..");
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}
