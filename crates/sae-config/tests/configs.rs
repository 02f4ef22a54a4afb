//! Configurations as a user writes them, good and bad, and what the errors tell.

// In a test, a panic is the report; the estimates are whole numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp)]

use std::path::Path;

use sae_config::estimate::{ModelShape, memory_uses, parameter_bytes, peak_bytes, training_tokens};
use sae_config::sweep::MOST_RUNS;
use sae_config::{RunConfig, Source, SweepConfig, Variant};

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
        (
            "coeff = 2 }",
            "coeff = 2, p = 0 }",
            &["loss.sparsity.p is 0", "none where it is relu", "p = 1"],
        ),
        (
            "expansion = 16",
            "expansion = 16\narchitecture = { topk = { k = 4 }, batch_topk = { k = 4 } }",
            &["architecture = {", "names two kinds", "unset"],
        ),
        (
            "expansion = 16",
            "expansion = 16\narchitecture = { jumprelu = { initial_threshold = 1e300, bandwidth = 1 } }",
            &["sae.architecture.jumprelu.initial_threshold", "1e30"],
        ),
        (
            "expansion = 16",
            "expansion = 16\narchitecture = { jumprelu = { initial_threshold = 0.1 } }",
            &["architecture = {", "bandwidth"],
        ),
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
    let expanded =
        SweepConfig::parse(SWEEP, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap();
    let ids: Vec<Vec<&str>> =
        expanded.jobs.iter().map(|job| job.iter().map(|run| run.id.as_str()).collect()).collect();
    assert_eq!(
        ids,
        [
            vec!["local_sparsity-1_seed-0", "local_sparsity-1_seed-1"],
            vec!["local_sparsity-2.5_seed-0", "local_sparsity-2.5_seed-1"],
            vec!["local_sparsity-8_seed-0", "local_sparsity-8_seed-1"],
            vec!["e2e_sparsity-2_seed-0", "e2e_sparsity-2_seed-1"],
        ]
    );
    let run = &expanded.jobs[1][1].config;
    assert_eq!((run.variant(), run.sae.seed), (Variant::Local, 1));
    assert!((run.loss.sparsity.coeff.get() - 2.5).abs() < 1e-12);
    assert!(expanded.runs().all(|run| run.config.n_features(10) == 240));
}

#[test]
fn runs_with_different_batches_do_not_share_a_bank() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let text = SWEEP.replace("\"sae.seed\" = [0, 1]", "\"data.seed\" = [0, 1]");
    let expanded =
        SweepConfig::parse(&text, "sweep.toml").unwrap().expand_from(&base, MOST_RUNS).unwrap();
    for job in &expanded.jobs {
        assert!(job.iter().all(|run| run.config.data.seed == job[0].config.data.seed));
    }
    assert_eq!(expanded.runs().count(), 8);
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
    assert!(error.contains("a list that names local twice"), "{error}");
}

#[test]
fn a_variant_leaves_out_what_the_base_the_sweep_and_its_grid_set() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let coefficients = |text: &str| -> Vec<(String, Option<f64>)> {
        let sweep = SweepConfig::parse(text, "sweep.toml").unwrap();
        let expanded = sweep.expand_from(&base, MOST_RUNS).unwrap();
        let local = |run: &sae_config::sweep::PlannedRun| {
            (run.id.clone(), run.config.loss.local.map(|term| term.coeff.get()))
        };
        expanded.runs().map(local).collect()
    };
    let sweep = r#"
        name = "demo"
        base = "base.toml"
        set = { "loss.local.coeff" = 3.0, "loss.kl.coeff" = 1.0 }
        variants = [{ name = "both" }, { name = "kl", unset = ["loss.local"] }]
    "#;
    let named = |id: &str, coeff| (id.to_owned(), coeff);
    assert_eq!(coefficients(sweep), [named("both", Some(3.0)), named("kl", None)]);
    let grid = format!("{sweep}\ngrid = {{ \"loss.local.coeff\" = [1.0, 2.0] }}");
    assert_eq!(
        coefficients(&grid),
        [named("both_local-1", Some(1.0)), named("both_local-2", Some(2.0)), named("kl", None)]
    );
    let empty = sweep.replace("\"base.toml\"", "\"\"");
    let error = SweepConfig::parse(&empty, "sweep.toml").unwrap_err().to_string();
    assert!(error.contains("base is empty"), "{error}");
}

#[test]
fn a_file_of_another_kind_is_told_with_its_command() {
    let pretrain = "model = { n_layers = 1 }\ndata = { train = \"d\" }\n";
    for (error, command) in [
        (RunConfig::parse(SWEEP, "x.toml").unwrap_err(), "a sweep, which `sae sweep` takes"),
        (SweepConfig::parse(BASE, "x.toml").unwrap_err(), "a run, which `sae train` takes"),
        (RunConfig::parse(pretrain, "x.toml").unwrap_err(), "which `sae pretrain` takes"),
    ] {
        assert!(error.to_string().contains(command), "{error}");
    }
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
    let expanded = many.expand_from(&base, 20_000).unwrap();
    // One job of each order of the data has room for eight runs: 100 × 25.
    assert_eq!((expanded.runs().count(), expanded.jobs.len()), (20_000, 2_500));
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
    let expanded = expand();
    let runs: Vec<_> = expanded.runs().collect();
    assert!(runs.iter().all(|run| run.id.len() <= 200 && run.id.starts_with("e2e_sites-")));
    assert_ne!(runs[0].id, runs[1].id);
    assert_eq!(expanded, expand());
    assert!(runs[1].values["sae.sites"].contains("blocks.14.hook_resid_pre"));
}

#[test]
fn sizes_of_a_checkpoint_of_the_reference_stand_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/tlens");
    let checkpoint = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pt"));
    let shape = ModelShape::load(&checkpoint.unwrap()).unwrap();
    assert!(shape.n_layers > 0 && shape.d_model > 0 && shape.vocabulary > 0);
}

#[test]
fn memory_is_estimated_once() {
    let run = RunConfig::parse(BASE, "run.toml").unwrap();
    // GPT-2 small has 124.4 M parameters, biases and norms among them.
    let shape = ModelShape::gpt2(12, 768, 50_257, 1024);
    assert!((shape.n_parameters as f64 - 124.4e6).abs() < 0.2e6, "{}", shape.n_parameters);
    let of = |what: &str, runs: &[&RunConfig]| {
        let uses = memory_uses(shape, runs);
        uses.into_iter().find(|used| used.what.contains(what)).unwrap().bytes
    };
    // F = 16 · 768; six copies of 2 F D + F + D numbers of four bytes.
    let (f, d) = (16.0 * 768.0, 768.0);
    let copies = 6.0 * 4.0 * (2.0 * f * d + f + d);
    assert_eq!(of("kept copies", &[&run]), copies);
    assert_eq!(of("kept copies", &[&run, &run]), 2.0 * copies);
    assert_eq!(parameter_bytes(shape, &[&run]), copies);
    // 8 windows of 128 tokens; blocks 3 to 11 of both members.
    assert_eq!(of("feature activations", &[&run, &run]), 4.0 * 1024.0 * 4.0 * f);
    assert_eq!(of("18 blocks", &[&run, &run]), 4.0 * 1024.0 * d * 24.0 * 18.0);
    let mut recomputed = run.clone();
    recomputed.train.recompute = true;
    assert_eq!(of("activations of 1 blocks", &[&recomputed]), 4.0 * 1024.0 * d * 24.0);
    // A spliced pass for each of five prefixes, or for one of them.
    for (spliced, passes) in [("all", 5.0), ("drawn", 1.0)] {
        let nested = format!(
            "expansion = 16\narchitecture = {{ matryoshka = {{ k = 4, spliced = {spliced:?} }} }}"
        );
        let nested =
            RunConfig::parse(&BASE.replace("expansion = 16", &nested), "run.toml").unwrap();
        let features = of("feature activations", &[&nested]);
        assert_eq!(features, 4.0 * 1024.0 * (passes + 2.0) * f);
        assert_eq!(of("blocks after", &[&nested]), 4.0 * 1024.0 * d * 24.0 * 9.0 * passes);
    }
    let all: f64 = memory_uses(shape, &[&run]).iter().map(|used| used.bytes).sum();
    assert_eq!(peak_bytes(shape, &[&run]), all);
}

#[test]
fn dry_runs_survive_what_is_within_bounds() {
    let long = BASE
        .replace("n_samples = 4801", "n_samples = 1_000_000_000_000_000")
        .replace("context_length = 128", "context_length = 1_000_000");
    let run = RunConfig::parse(&long, "run.toml").unwrap();
    assert_eq!(training_tokens(&run), u64::MAX);
    let shape = ModelShape::gpt2(12, 768, 50_257, 1024);
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

/// A run whose paths are these.
fn with_paths(model: &str, data: &str) -> String {
    format!(
        "[model]\npath = {model:?}\n[data]\ntrain = {data:?}\ncontext_length = 8\n[sae]\nsites = [\"blocks.1.hook_resid_pre\"]\n\
         expansion = 2.0\npretrained = [\"saes\"]\n[loss]\nsparsity = {{ coeff = 1.0 }}\nlocal = {{ coeff = 1.0 }}\n[train]\n\
         n_samples = 64\nbatch_size = 8\nlr = 1e-3\n[eval]\ndata = \"/data/held-out\"\n"
    )
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let place = tempfile::tempdir().unwrap();
    let at = |path: &str| place.path().join(path);
    std::fs::create_dir_all(at("configs/runs")).unwrap();
    std::fs::create_dir_all(at("configs/sweeps")).unwrap();
    let run = at("configs/runs/run.toml");
    std::fs::write(&run, with_paths("../../models/./tiny", "hf://owner/data")).unwrap();
    let config = RunConfig::load(&run).unwrap();
    let local = |path: &str| Source::Local(at(path));
    assert_eq!(config.model.path, local("models/tiny"));
    assert_eq!(config.data.train, "hf://owner/data".parse().unwrap());
    assert_eq!(config.sae.pretrained, [local("configs/runs/saes")]);
    assert_eq!(config.eval.data, Source::Local("/data/held-out".into()));
    // What a run has recorded stays as it is.
    let recorded = RunConfig::load_recorded(&run).unwrap();
    assert_eq!(recorded.model.path, Source::Local("../../models/./tiny".into()));
    // A sweep's own paths are as seen from the sweep, the base's from the base.
    let sweep = at("configs/sweeps/sweep.toml");
    let text = "name = \"s\"\nbase = \"../runs/run.toml\"\n[set]\n\"data.train\" = \"../../data\"\n[[variants]]\nname = \"local\"\n\
                grid = { \"eval.data\" = [\"a\", \"b\"] }\n";
    std::fs::write(&sweep, text).unwrap();
    let expanded = SweepConfig::load(&sweep).unwrap().expand(10).unwrap();
    let configs: Vec<&RunConfig> = expanded.runs().map(|run| &run.config).collect();
    assert_eq!(configs.len(), 2);
    assert_eq!(configs[0].model.path, local("models/tiny"));
    assert_eq!(configs[0].data.train, local("data"));
    assert_eq!(configs[1].eval.data, local("configs/sweeps/b"));
    // What is named after a path is named as it is written: runs keep their names where a sweep moves.
    let ids: Vec<&str> = expanded.runs().map(|run| run.id.as_str()).collect();
    assert_eq!(ids, ["local_data-a", "local_data-b"]);
    // An empty path is none, also for a sweep.
    let error = RunConfig::parse(&with_paths("", "b"), "by hand").unwrap_err().to_string();
    assert!(error.contains("found an empty text"), "{error}");
}

#[cfg(unix)]
#[test]
fn paths_climb_from_where_a_folder_really_is() {
    let place = tempfile::tempdir().unwrap();
    let real = place.path().canonicalize().unwrap();
    let at = |path: &str| real.join(path);
    std::fs::create_dir_all(at("project [2]/configs")).unwrap();
    std::fs::write(at("project [2]/configs/run.toml"), with_paths("../tiny", "../data/*.parquet"))
        .unwrap();
    std::os::unix::fs::symlink(at("project [2]/configs"), at("linked")).unwrap();
    let config = RunConfig::load(&at("linked/run.toml")).unwrap();
    assert_eq!(config.model.path, Source::Local(at("project [2]/tiny")));
    // The folder's own name is no part of a glob.
    assert_eq!(config.data.train, Source::Local(at("project [[]2]/data/*.parquet")));
}

#[test]
fn settings_replace_values() {
    let config = RunConfig::parse(&with_paths("a", "b"), "by hand").unwrap();
    let settings = ["model.path=/models/tiny", "train.lr = 0.5", "sae.seed=7"].map(str::to_owned);
    let found = config.with(&settings).unwrap();
    assert_eq!(found.model.path, Source::Local("/models/tiny".into()));
    assert_eq!((found.train.lr.get(), found.sae.seed), (0.5, 7));
    // What only several make right is checked once all are set; a text may look like a number.
    let several = ["train.batch_size=32", "train.effective_batch_size=64", "data.split=2024"];
    for order in [[0, 1, 2], [1, 0, 2]] {
        let found = config.with(&order.map(|at| several[at].to_owned())).unwrap();
        assert_eq!((found.effective_batch_size(), found.data.split.as_deref()), (64, Some("2024")));
    }
    for (setting, parts) in [
        ("train.lr", "expected KEY=VALUE"),
        ("train.lr=-1", "--set train.lr=-1"),
        ("train.rl=1", "did you mean `lr`"),
        ("sae.sites=[blocks.3.hook_resid_pre]", "lack of quotes"),
        ("train.effective_batch_size=9", "--set train.effective_batch_size=9"),
    ] {
        let error = config.with(&[setting.to_owned()]).unwrap_err().to_string();
        assert!(error.contains(parts), "{error}");
    }
}
