//! The analysis of sweeps of real size, which takes too long for every test run:
//!
//! `cargo test -p sae-analysis --test real_sweep -- --ignored --nocapture`
//!
//! With a finished sweep's folder in `SAE_SWEEP`, that is analysed as well.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use std::path::Path;
use std::time::Instant;

use sae_analysis::{Analysis, AnalysisOptions, analyse_with};
use sae_config::Variant;
use support::Sweep;

fn timed(folder: &Path) -> Analysis {
    let start = Instant::now();
    let found = analyse_with(folder, &AnalysisOptions::default(), &mut |_| {}).unwrap();
    eprintln!("{}: {:.1} s", folder.display(), start.elapsed().as_secs_f64());
    found
}

#[test]
#[ignore = "reads the folder in SAE_SWEEP"]
fn a_sweep_of_ones_own() {
    let Some(folder) = std::env::var_os("SAE_SWEEP") else { return };
    let found = timed(Path::new(&folder));
    eprintln!("{}", found.text);
}

/// 30 runs with dictionaries of 4096 × 128 at two sites.
#[test]
#[ignore = "a minute of all cores"]
fn thirty_runs_of_4096_features() {
    let mut sweep = Sweep::empty(4096, 128);
    for variant in [Variant::Local, Variant::E2e, Variant::E2eDs] {
        for coeff in [1.0, 2.0, 3.0, 4.0, 5.0] {
            for seed in [0, 1] {
                let config = support::config(variant, coeff, seed, 32.0);
                sweep.add(&format!("{variant}-{coeff}-{seed}"), config);
            }
        }
    }
    sweep.write();
    let found = timed(sweep.path());
    assert_eq!(found.evidence.geometry.within.len(), 60);
}
