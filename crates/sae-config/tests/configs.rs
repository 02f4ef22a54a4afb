//! Configurations as a user writes them, good and bad, and what the errors tell.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use sae_config::{RunConfig, SweepConfig, Variant};

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
    let manifest = SweepConfig::parse(SWEEP, "sweep.toml").unwrap().expand_from(&base).unwrap();
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
    let manifest = SweepConfig::parse(&text, "sweep.toml").unwrap().expand_from(&base).unwrap();
    for job in &manifest.jobs {
        assert!(job.runs.iter().all(|run| run.config.data.seed == job.runs[0].config.data.seed));
    }
    assert_eq!(manifest.runs().count(), 8);
}

#[test]
fn a_sweep_with_an_unknown_key_or_name_is_refused() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let text = SWEEP.replace("loss.sparsity.coeff", "loss.sparsity.coef");
    let error = SweepConfig::parse(&text, "sweep.toml").unwrap().expand_from(&base).unwrap_err();
    assert!(error.to_string().contains("`coeff`?"), "{error}");
    let error = SweepConfig::parse(&SWEEP.replace("\"demo\"", "\"../x\""), "s").unwrap_err();
    assert!(error.to_string().contains("names become folders"), "{error}");
}
