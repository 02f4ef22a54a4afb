//! Configurations as a user writes them, good and bad, and what the errors tell.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::Path;

use sae_config::estimate::{ModelShape, peak_bytes, training_tokens};
use sae_config::sweep::MOST_RUNS;
use sae_config::{Manifest, RunConfig, SweepConfig, Variant};

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

fn message(text: &str) -> String {
    match RunConfig::parse(text, "run.toml") {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn defaults_and_derived_numbers() {
    let run = RunConfig::parse(BASE, "run.toml").unwrap();
    assert_eq!((run.n_steps(), run.accumulation(), run.effective_batch_size()), (300, 2, 16));
    assert_eq!(run.variant(), Variant::E2e);
    assert_eq!((run.eval.alive_tokens, run.data.column.as_str()), (500_000, "text"));
    assert_eq!(RunConfig::parse(&run.to_toml().unwrap(), "again").unwrap(), run);
}

#[test]
fn bad_input_names_key_and_remedy() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "lr = 1e-3",
            "lr = 1e-3\nmax_grad_nrm = 1.0",
            &["max_grad_nrm", "`max_grad_norm`?", "run.toml"],
        ),
        ("coeff = 2 ", "coeff = -2 ", &["-2", "0 or more"]),
        ("coeff = 2 ", "coeff = nan ", &["NaN", "0 or more"]),
        ("blocks.3.hook_resid_pre", "blocks.3.hook_z", &["blocks.3.hook_z", "hook_mlp_out"]),
        ("effective_batch_size = 16", "effective_batch_size = 12", &["12", "multiple", "8"]),
        (
            "warmup_samples = 160",
            "kind = \"linear\"\nwarmup_samples = 4000\ncooldown_samples = 900",
            &["overlap"],
        ),
        ("warmup_samples = 160", "cooldown_samples = 10", &["cosine has no cool-down"]),
        ("kl = { coeff = 1.0 }", "kl = { coeff = 0.0 }", &["something to reconstruct"]),
        ("n_samples = 4801", "n_samples = 15", &["15", "one optimiser step takes 16"]),
        ("context_length = 128", "context_length = 0", &["context_length"]),
        ("context_length = 128", "context_length = 1", &["data.context_length is 1", "next token"]),
        ("n_samples = 64", "n_samples = 64\nalive_tokens = 0", &["eval.alive_tokens is 0"]),
        ("expansion = 16", "expansion = 1e9", &["sae.expansion is 1000000000", "per dimension"]),
        ("expansion = 16", "expansion = 1e18", &["sae.expansion", "65536 is the most"]),
        (
            "n_samples = 64",
            "n_samples = 64\nbatch_size = 9223372036854775807",
            &["eval.batch_size is 9223372036854775807", "is the most"],
        ),
        (
            "n_samples = 64",
            "n_samples = 64\nalive_tokens = 9223372036854775807",
            &["eval.alive_tokens is 9223372036854775807", "is the most"],
        ),
        (
            "\nbatch_size = 8",
            "\nbatch_size = 9223372036854775807",
            &["train.batch_size", "is the most"],
        ),
        (
            "kl = { coeff = 1.0 }",
            "downstream = { total_coeff = 1.0, sites = [\"blocks.4.hook_resid_pre\", \"blocks.4.hook_resid_pre\"] }",
            &["loss.downstream.sites", "once each"],
        ),
        (
            "kl = { coeff = 1.0 }",
            "downstream = { total_coeff = 1.0, sites = [\"blocks.2.hook_resid_pre\"] }",
            &["blocks.2.hook_resid_pre", "at or before the first SAE"],
        ),
        (
            "[\"blocks.3.hook_resid_pre\"]",
            "[\"blocks.3.hook_resid_pre\", \"blocks.1.hook_resid_pre\"]",
            &["order in which the model computes"],
        ),
    ];
    for (from, to, wanted) in cases {
        assert!(BASE.contains(from), "{from}");
        let message = message(&BASE.replacen(from, to, 1));
        assert!(message.contains("run.toml"), "no file in: {message}");
        for part in *wanted {
            assert!(message.contains(part), "`{part}` is missing from: {message}");
        }
    }
}

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
fn a_sweep_expands_to_banks_of_one_variant() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let manifest =
        SweepConfig::parse(SWEEP, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap();
    let ids: Vec<Vec<&str>> = manifest
        .jobs
        .iter()
        .map(|job| job.runs.iter().map(|run| run.id.as_str()).collect())
        .collect();
    assert_eq!(
        ids,
        [
            vec!["local_sparsity-1_seed-0", "local_sparsity-1_seed-1"],
            vec!["local_sparsity-2.5_seed-0", "local_sparsity-2.5_seed-1"],
            vec!["local_sparsity-8_seed-0", "local_sparsity-8_seed-1"],
            vec!["e2e_sparsity-2_seed-0", "e2e_sparsity-2_seed-1"],
        ]
    );
    let run = &manifest.jobs[1].runs[1].config;
    assert_eq!((run.variant(), run.sae.seed), (Variant::Local, 1));
    assert!((run.loss.sparsity.coeff.get() - 2.5).abs() < 1e-12);
    assert!(manifest.runs().all(|run| run.config.n_features(10) == 240));
}

#[test]
fn runs_with_different_batches_do_not_share_a_bank() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let text = SWEEP.replace("\"sae.seed\" = [0, 1]", "\"data.seed\" = [0, 1]");
    let manifest =
        SweepConfig::parse(&text, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap();
    for job in &manifest.jobs {
        assert!(job.runs.iter().all(|run| run.config.data.seed == job.runs[0].config.data.seed));
    }
    assert_eq!(manifest.runs().count(), 8);
}

#[test]
fn a_sweep_with_an_unknown_key_or_name_is_refused() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let text = SWEEP.replace("loss.sparsity.coeff", "loss.sparsity.coef");
    let error =
        SweepConfig::parse(&text, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap_err();
    assert!(error.to_string().contains("`coeff`?"), "{error}");
    let error = SweepConfig::parse(&SWEEP.replace("\"demo\"", "\"../x\""), "s").unwrap_err();
    assert!(error.to_string().contains("names become folders"), "{error}");
}

fn sweep_error(text: &str) -> String {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let expanded = SweepConfig::parse(text, "sweep.toml")
        .and_then(|sweep| sweep.expand_from(&base, MOST_RUNS));
    expanded.expect_err("accepted").to_string()
}

#[test]
fn a_variant_is_neither_dropped_nor_merged_with_another() {
    let error = sweep_error(&SWEEP.replace("[2.0]", "[]"));
    assert!(error.contains("`loss.sparsity.coeff` without values"), "{error}");
    let error = sweep_error(&SWEEP.replace("\"sae.seed\" = [0, 1]", "\"sae.seed\" = []"));
    assert!(error.contains("`sae.seed` without values"), "{error}");
    // The same name with other values would make one group of two variants.
    let error = sweep_error(&SWEEP.replace("name = \"e2e\"", "name = \"local\""));
    assert!(error.contains("two variants named local"), "{error}");
}

fn grid(keys: &[(&str, usize)]) -> String {
    let mut text =
        "name = \"wide\"\nbase = \"unused\"\n[[variants]]\nname = \"e2e\"\n[grid]\n".to_owned();
    for (key, count) in keys {
        let values: Vec<String> = (1..=*count).map(|value| value.to_string()).collect();
        text = format!("{text}\"{key}\" = [{}]\n", values.join(", "));
    }
    text
}

#[test]
fn large_grids_are_refused_at_once_or_expanded_in_linear_time() {
    let ten_million = grid(&[("sae.seed", 10_000), ("data.seed", 1_000)]);
    let began = std::time::Instant::now();
    let error = sweep_error(&ten_million);
    assert!(error.contains("10000000 runs") && error.contains("--max-runs 10000000"), "{error}");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());

    let base: toml::Table = toml::from_str(BASE).unwrap();
    let many = SweepConfig::parse(&grid(&[("sae.seed", 200), ("data.seed", 100)]), "s").unwrap();
    let began = std::time::Instant::now();
    let manifest = many.expand_from(&base, 20_000).unwrap();
    // One job of each order of the data has room for eight runs: 100 × 25.
    assert_eq!((manifest.runs().count(), manifest.jobs.len()), (20_000, 2_500));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn long_ids_are_short_stable_and_distinct() {
    let hooks = |n: usize| -> String {
        let sites: Vec<String> =
            (0..n).map(|block| format!("\"blocks.{block}.hook_resid_pre\"")).collect();
        format!("[{}]", sites.join(", "))
    };
    let text = format!(
        "name = \"long\"\nbase = \"unused\"\n[[variants]]\nname = \"e2e\"\n[grid]\n\"sae.sites\" = [{}, {}]",
        hooks(14),
        hooks(15)
    );
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let expand = || SweepConfig::parse(&text, "s").unwrap().expand_from(&base, MOST_RUNS).unwrap();
    let manifest = expand();
    let runs: Vec<_> = manifest.runs().collect();
    assert!(runs.iter().all(|run| run.id.len() <= 200 && run.id.starts_with("e2e_sites-")));
    assert_ne!(runs[0].id, runs[1].id);
    assert_eq!(manifest, expand());
    assert!(runs[1].values["sae.sites"].contains("blocks.14.hook_resid_pre"));
}

#[test]
fn a_manifest_writes_into_its_own_folder_alone() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let manifest =
        SweepConfig::parse(SWEEP, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap();
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
    let expand =
        |text: &str| SweepConfig::parse(text, "s").unwrap().expand_from(&base, MOST_RUNS).unwrap();
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

#[test]
fn sizes_of_a_checkpoint_of_the_reference_stand_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/tlens");
    let checkpoint = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pt"));
    let shape = ModelShape::load(&checkpoint.unwrap()).unwrap();
    assert!(shape.n_layer > 0 && shape.n_embd > 0 && shape.vocab_size > 0 && shape.n_positions > 0);
}

#[test]
fn dry_runs_survive_what_is_within_bounds() {
    let long = BASE
        .replace("n_samples = 4801", "n_samples = 1_000_000_000_000_000")
        .replace("context_length = 128", "context_length = 1_000_000");
    let run = RunConfig::parse(&long, "run.toml").unwrap();
    assert_eq!(training_tokens(&run), u64::MAX);
    let shape = ModelShape { n_layer: 12, n_embd: 768, vocab_size: 50_257, n_positions: 1024 };
    assert!(peak_bytes(shape, &[&run]).is_finite());
    // A key of other letters becomes an id of plain ones; that it is no key is told where it is used.
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let key = format!("sae.ab{}", "é".repeat(200));
    let text = format!(
        "name = \"odd\"\nbase = \"unused\"\n[[variants]]\nname = \"e2e\"\n[grid]\n\"{key}\" = [1, 2]"
    );
    let error = SweepConfig::parse(&text, "s").unwrap().expand_from(&base, MOST_RUNS).unwrap_err();
    assert!(error.to_string().contains("unknown field"), "{error}");
}
