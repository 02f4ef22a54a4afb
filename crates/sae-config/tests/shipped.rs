//! The configurations that the repository ships can be read, and expand.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};

use sae_config::{PretrainConfig, RunConfig, SweepConfig};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn runs_and_pretraining() {
    for file in files("runs") {
        RunConfig::load(&file).unwrap();
    }
    for file in files("pretrain") {
        PretrainConfig::load(&file).unwrap();
    }
}

#[test]
fn sweeps() {
    for file in files("sweeps") {
        let sweep = SweepConfig::load(&file).unwrap();
        let expanded = sweep.expand(sae_config::sweep::MOST_RUNS).unwrap();
        let said = format!("{} runs in {} jobs", expanded.runs().count(), expanded.jobs.len());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&said), "{} does not say `{said}`", file.display());
        for variant in &sweep.variants {
            let name = format!("{}_", variant.name);
            let own = expanded.runs().filter(|run| run.id.starts_with(&name));
            assert!(
                own.count() >= 4,
                "{}: {} has too few points for a frontier",
                file.display(),
                variant.name
            );
        }
    }
}
