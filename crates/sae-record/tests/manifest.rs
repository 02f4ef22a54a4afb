//! Manifests, good and bad: where runs may write, and whether two are of one sweep.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::path::Path;

use sae_config::SweepConfig;
use sae_config::sweep::MOST_RUNS;
use sae_record::Manifest;

const BASE: &str = r#"
[model]
path = "model"
[data]
train = "train"
context_length = 128
[sae]
sites = ["blocks.3.hook_resid_pre"]
expansion = 16
[loss]
sparsity = { coeff = 2 }
kl = { coeff = 1.0 }
[train]
n_samples = 4801
batch_size = 8
effective_batch_size = 16
lr = 1e-3
[train.schedule]
warmup_samples = 160
[eval]
data = "validation"
n_samples = 64
"#;

const SWEEP: &str = r#"
name = "demo"
base = "unused.toml"
bank_size = 2
set = { "sae.expansion" = 24 }
[[variants]]
name = "local"
set = { "loss.local.coeff" = 1.0, "loss.kl.coeff" = 0.0 }
grid = { "loss.sparsity.coeff" = [1.0, 2.5, 8] }
[[variants]]
name = "e2e"
grid = { "loss.sparsity.coeff" = [2.0] }
[grid]
"sae.seed" = [0, 1]
"#;

#[test]
fn a_manifest_writes_into_its_own_folder_alone() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let sweep = SweepConfig::parse(SWEEP, "sweep.toml").unwrap();
    let manifest = Manifest::from(sweep.expand_from(&base, MOST_RUNS).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    manifest.save(&path).unwrap();
    assert_eq!(Manifest::load(&path).unwrap(), manifest);
    let refused = |edit: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        edit(&mut manifest);
        manifest.save(&path).unwrap();
        Manifest::load(&path).unwrap_err().to_string()
    };
    // A folder in another's would be replaced by that run's files.
    let first = manifest.jobs[0].runs[0].folder.clone();
    let error = refused(&|manifest| {
        manifest.jobs[0].runs[1].folder = first.join("checkpoints");
    });
    assert!(error.contains("no run's folder lies in another's"), "{error}");
    for outside in ["../../x", "/tmp/x", "a/../../x", "."] {
        let error = refused(&|manifest| manifest.jobs[0].runs[0].folder = outside.into());
        assert!(error.contains("folder is") && error.contains("manifest.json"), "{error}");
    }
    let twice = manifest.jobs[0].runs[1].folder.clone();
    let error = refused(&|manifest| manifest.jobs[0].runs[0].folder = Path::new(".").join(&twice));
    assert!(error.contains("folder is"), "{error}");
    let error = refused(&|manifest| manifest.jobs[0].runs[0].folder.clone_from(&twice));
    assert!(error.contains("twice"), "{error}");
    let error = refused(&|manifest| manifest.jobs[0].runs[0].id = "\u{1b}[2J".to_owned());
    assert!(error.contains("id is") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_sweep_adopts_the_commits_that_its_manifest_was_pinned_to() {
    let base: toml::Table =
        toml::from_str(&BASE.replace("\"model\"", "\"hf://a/b@step1\"")).unwrap();
    let expand = |text: &str| {
        let sweep = SweepConfig::parse(text, "s").unwrap();
        Manifest::from(sweep.expand_from(&base, MOST_RUNS).unwrap())
    };
    let wanted = expand(SWEEP);
    assert!(wanted.is_floating());
    let mut pinned = wanted.clone();
    let commit = format!("hf://a/b@step1:{}", "0a".repeat(20));
    for run in pinned.jobs.iter_mut().flat_map(|job| &mut job.runs) {
        run.config.model.path = commit.parse().unwrap();
    }
    assert!(!pinned.is_floating() && wanted.is_same_sweep(&pinned));
    let other = expand(&SWEEP.replace("[2.0]", "[3.0]"));
    assert!(!other.is_same_sweep(&pinned));
    let set = "set = { \"sae.expansion\" = 24 }";
    let moved =
        SWEEP.replace(set, "set = { \"model.path\" = \"hf://a/b@step2\", \"sae.expansion\" = 24 }");
    assert!(!expand(&moved).is_same_sweep(&pinned), "another revision is another sweep");
}
