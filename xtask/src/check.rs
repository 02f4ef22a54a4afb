//! `cargo xtask check`: formatting, lints, documentation, the floors of the crates, licences, and that every file says what it
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use clap::Args;

use crate::{licences, setup, tool};

/// Check formatting, lints, documentation, the crates' floors, their licences and every file's opening line
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Ask `cargo deny`, which must be installed, for advisories as well; it needs the network
    #[arg(long)]
    advisories: bool,
}

/// The floors: which crates of the workspace a crate may use. What is not listed here is an error, so a new crate is
/// given its place in this table.
const FLOORS: &[(&str, &[&str])] = &[
    ("sae-cuda", &[]),
    ("sae-kernels", &[]),
    ("sae-config", &[]),
    ("sae-tensors", &[]),
    ("sae-record", &["sae-config"]),
    ("sae-data", &["sae-config"]),
    ("sae-nn", &["sae-config", "sae-cuda", "sae-kernels", "sae-tensors"]),
    ("sae-model", &["sae-config", "sae-tensors"]),
    ("sae-splice", &["sae-config", "sae-model", "sae-nn"]),
    ("sae-eval", &["sae-config", "sae-data", "sae-model", "sae-nn", "sae-record", "sae-splice"]),
    (
        "sae-train",
        &[
            "sae-config",
            "sae-data",
            "sae-eval",
            "sae-model",
            "sae-nn",
            "sae-record",
            "sae-splice",
            "sae-tensors",
        ],
    ),
    ("sae-analysis", &["sae-config", "sae-record"]),
    ("sae-interp", &["sae-config", "sae-record"]),
    ("sae-launch", &["sae-config", "sae-record"]),
    ("sae-view", &["sae-analysis", "sae-config", "sae-record", "sae-splice", "sae-train"]),
    (
        "sae-cli",
        &[
            "sae-analysis",
            "sae-config",
            "sae-data",
            "sae-interp",
            "sae-launch",
            "sae-model",
            "sae-nn",
            "sae-record",
            "sae-splice",
            "sae-train",
            "sae-view",
        ],
    ),
    ("xtask", &["sae-config", "sae-launch", "sae-record"]),
];

/// Crates that must build without libtorch.
pub(crate) const WITHOUT_TORCH: &[&str] = &[
    "sae-cuda",
    "sae-kernels",
    "sae-config",
    "sae-record",
    "sae-data",
    "sae-analysis",
    "sae-interp",
    "sae-launch",
    "xtask",
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    tool::say("formatting");
    tool::run(tool::cargo().args(["fmt", "--all", "--check"]))?;
    tool::say("floors");
    let metadata = MetadataCommand::new()
        .current_dir(tool::root())
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cannot read the workspace's metadata")?;
    floors(&metadata)?;
    tool::say("licences");
    licences::check(&metadata)?;
    if arguments.advisories {
        licences::advisories()?;
    }
    tool::say("opening lines");
    opening_lines(&tool::root())?;
    setup::ensure()?;
    tool::say("lints");
    tool::run(tool::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    tool::say("documentation");
    let mut doc = tool::cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    // RUSTDOCFLAGS would replace the run paths of `.cargo/config.toml`, which documentation does not need.
    tool::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    tool::say("all checks passed");
    Ok(())
}

fn floors(metadata: &Metadata) -> anyhow::Result<()> {
    let members: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let used: Vec<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind != DependencyKind::Development)
            .map(|dependency| dependency.name.as_str())
            .filter(|used| members.contains(used))
            .collect();
        check_floor(name, &used)?;
        ensure!(
            !WITHOUT_TORCH.contains(&name) || !reaches(metadata, name, "torch-sys")?,
            "{name} reaches torch-sys, and must build without libtorch"
        );
    }
    Ok(())
}

/// Refuses what the table of floors does not let a crate use.
fn check_floor(name: &str, used: &[&str]) -> anyhow::Result<()> {
    let Some((_, may_use)) = FLOORS.iter().find(|(listed, _)| *listed == name) else {
        bail!("{name} has no place in the table of floors (xtask/src/check.rs)");
    };
    if let Some(used) = used.iter().find(|used| !may_use.contains(used)) {
        bail!("{name} must not use {used}: the floors (xtask/src/check.rs) let it use {may_use:?}");
    }
    Ok(())
}

/// Whether a package's normal or build dependencies lead to `target`.
fn reaches(metadata: &Metadata, from: &str, target: &str) -> anyhow::Result<bool> {
    let resolve = metadata.resolve.as_ref().context("cargo gave no resolved dependencies")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let start = names.iter().find(|(_, name)| **name == from).context("an unknown package")?;
    let (mut seen, mut next) = (BTreeSet::new(), vec![*start.0]);
    while let Some(id) = next.pop() {
        if names.get(id) == Some(&target) {
            return Ok(true);
        }
        if !seen.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
        next.extend(
            dependencies
                .iter()
                .filter(|dep| {
                    dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
                })
                .map(|dep| &dep.pkg),
        );
    }
    Ok(false)
}

/// Every Rust file opens with `//!`.
fn opening_lines(root: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "data/rust-corpus"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    let silent: Vec<String> = files
        .into_iter()
        .filter(|file| !std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("//! ")))
        .map(|file| file.strip_prefix(root).unwrap_or(&file).display().to_string())
        .collect();
    ensure!(silent.is_empty(), "these files do not open with `//!`: {}", silent.join(", "));
    Ok(())
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FLOORS, check_floor, opening_lines};

    #[test]
    fn arrows_point_down_only() {
        assert!(check_floor("sae-splice", &["sae-nn", "sae-model"]).is_ok());
        let error = check_floor("sae-nn", &["sae-model"]).unwrap_err().to_string();
        assert!(error.contains("sae-nn must not use sae-model"), "{error}");
        assert!(check_floor("sae-new", &[]).is_err());
        // The table itself has no circle: a crate uses only crates that stand above it in the table.
        for (place, (name, may_use)) in FLOORS.iter().enumerate() {
            for used in *may_use {
                assert!(FLOORS[..place].iter().any(|(above, _)| above == used), "{name} {used}");
            }
        }
    }

    #[test]
    fn a_file_that_says_nothing_of_itself_is_found() {
        let root = std::env::temp_dir().join(format!("xtask-check-{}", std::process::id()));
        for folder in ["crates/a/src", "xtask", "data/rust-corpus"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let file = root.join("crates/a/src/lib.rs");
        std::fs::write(&file, "//! Says.\n").unwrap();
        assert!(opening_lines(&root).is_ok());
        std::fs::write(&file, "fn silent() {}\n").unwrap();
        let error = opening_lines(&root).unwrap_err().to_string();
        assert!(error.contains("crates/a/src/lib.rs"), "{error}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
