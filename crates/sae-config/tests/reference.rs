//! The reference's configurations: what becomes of every field, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.
#![allow(clippy::float_cmp)] // Numbers are copied, not computed.

#[path = "reference/differences.rs"]
mod differences;
#[path = "reference/language_model.rs"]
mod language_model;
#[path = "reference/sources.rs"]
mod sources;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sae_config::reference::{self, Imported, Kind, TlensConfig};
use sae_config::run::{Processing, ScheduleKind};
use sae_config::{
    ConfigError, PretrainConfig, RunConfig, Site, SiteKind, Source, SweepConfig, Variant,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name)
}

fn text() -> String {
    std::fs::read_to_string(fixture("gpt2_e2e_recon.yaml")).unwrap()
}

#[allow(clippy::unnecessary_wraps)] // As `ModelSites` has it.
/// Twelve blocks with the residual streams before and after.
fn twelve(_: &Source) -> Result<Vec<Site>, ConfigError> {
    Ok((0..12)
        .flat_map(|block| {
            [SiteKind::ResidPre, SiteKind::MlpOut, SiteKind::ResidPost]
                .map(|kind| Site { block, kind })
        })
        .collect())
}

fn import(edits: &[(&str, &str)]) -> Result<Imported, ConfigError> {
    let mut text = text();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    reference::parse(&text, "run.yaml", &mut twelve)
}

#[test]
fn every_field_finds_its_place() {
    let Imported { run, warnings } = import(&[]).unwrap();
    assert_eq!(run.model.path.to_string(), "hf://openai-community/gpt2");
    assert_eq!(run.model.processing, Processing::TransformerLens);
    assert_eq!(
        run.data.train.to_string(),
        "hf://apollo-research/Skylion007-openwebtext-tokenizer-gpt2"
    );
    assert_eq!((run.data.split.as_deref(), run.data.column.as_str()), (Some("train"), "input_ids"));
    assert_eq!((run.data.context_length.get(), run.data.bos, run.data.seed), (1024, false, 3));
    assert_eq!((run.sae.seed, run.sae.expansion.get()), (3, 60.0));
    assert_eq!(run.sae.sites, [Site::resid_pre(6)]);
    assert_eq!((run.train.n_samples, run.n_steps()), (Some(400_000), 25_000));
    assert_eq!((run.train.batch_size.get(), run.effective_batch_size()), (8, 16));
    assert_eq!((run.train.lr.get(), run.train.max_grad_norm.unwrap().get()), (5e-4, 10.0));
    let schedule = run.train.schedule;
    assert_eq!((schedule.kind, schedule.warmup_samples), (ScheduleKind::Cosine, 20_000));
    assert_eq!(run.variant(), Variant::E2eDs);
    let loss = &run.loss;
    assert_eq!((loss.sparsity.coeff.get(), loss.sparsity.p.get()), (1.5, 1.0));
    assert_eq!((loss.local.unwrap().coeff.get(), loss.kl.unwrap().coeff.get()), (0.0, 0.5));
    let downstream = loss.downstream.as_ref().unwrap();
    assert_eq!(downstream.total_coeff.get(), 2.5);
    assert_eq!(downstream.sites, [Site::resid_pre(7), Site::resid_pre(8)]);
    assert_eq!(run.log.every_n_steps.get(), 20);
    // 40 001 samples are 2 500 steps of 16 and one more.
    assert_eq!(run.log.checkpoint_every_n_steps.unwrap().get(), 2501);
    assert_eq!(run.eval.every_n_samples.unwrap().get(), 40_000);
    assert_eq!((run.eval.n_samples, run.eval.alive_tokens), (Some(500), 500_000));
    // The same data for both: the first windows are held out.
    assert_eq!(run.data.skip, 500);
    assert_eq!(
        warnings,
        [
            "without a meaning here, left out: wandb_project, collect_act_frequency_every_n_samples (metrics and \
             checkpoints are written to the run's folder, --out; activation frequencies are counted once, at the end)",
            "evaluation and training are on the same data, which the reference does not keep apart: the first 500 windows \
             are held out for the evaluation",
            "the evaluation is on the first 500 windows in the order of the files; the reference takes 504 windows of \
             the shuffled data",
            "eval_every_n_samples: the reference evaluates after 8, 40008, 80008, … samples and at the end, this software \
             after 40000, 80000, … samples and at the end",
        ]
    );
    // The TOML says it all.
    assert_eq!(RunConfig::parse(&run.to_toml().unwrap(), "toml").unwrap(), run);
}

#[test]
fn positions_are_substrings_of_sites() {
    let positions = |to: &str| {
        let edits = [("    - blocks.6.hook_resid_pre\n  dict", to)];
        let edits = [
            edits[0],
            (
                "in_to_orig:\n    hook_positions:\n      - blocks.7.hook_resid_pre\n      - blocks.8.hook_resid_pre\n    total_coeff: 2.5",
                "in_to_orig: null",
            ),
        ];
        import(&edits).map(|imported| imported.run.sae.sites)
    };
    assert_eq!(positions("    - hook_mlp_out\n  dict").unwrap().len(), 12);
    let some = positions("    - blocks.3.hook_resid_post\n    - blocks.1\n  dict").unwrap();
    let blocks: Vec<usize> = some.iter().map(|site| site.block).collect();
    assert_eq!(blocks, [1, 1, 1, 3, 10, 10, 10, 11, 11, 11]);
    let both = positions("    - blocks.3.hook_resid_post\n    - blocks.1.hook_resid_pre\n  dict");
    assert_eq!(both.unwrap(), [Site::resid_pre(1), Site::resid_post(3)]);
    let error = positions("    - attn.hook_z\n  dict").unwrap_err().to_string();
    assert!(error.contains("`attn.hook_z`") && error.contains("hook_mlp_out"), "{error}");
    let error = positions("    - hook_resid_pre\n    - hook_q\n  dict").unwrap_err().to_string();
    assert!(error.contains("`hook_q`"), "{error}");
}

#[test]
fn positions_given_as_text_and_downstream_ones_before_the_sae() {
    let run = import(&[(
        "sae_positions:\n    - blocks.6.hook_resid_pre",
        "sae_positions: blocks.7.hook_resid_pre",
    )]);
    let Imported { run, warnings } = run.unwrap();
    let downstream = run.loss.downstream.unwrap();
    assert_eq!(downstream.sites, [Site::resid_pre(8)]);
    assert_eq!(downstream.total_coeff.get(), 1.25);
    assert!(warnings.iter().any(|warning| warning.contains("1 of 2 positions")), "{warnings:?}");
}

#[test]
fn data_of_other_kinds() {
    // Raw text is read from the column `text`, and windows begin with BOS, as the reference tokenises.
    let Imported { run, .. } = import(&[
        ("is_tokenized: true\n  tokenizer_name: gpt2\n  streaming: true\n  split: train\n  n_ctx: 1024\neval_data:", "is_tokenized: false\n  tokenizer_name: EleutherAI/gpt-neox-20B\n  streaming: false\n  split: train\n  n_ctx: 1024\neval_data:"),
        ("eval_n_samples: 500", "eval_n_samples: null"),
    ])
    .unwrap();
    assert_eq!((run.data.column.as_str(), run.data.bos, run.data.skip), ("text", true, 0));
    assert_eq!(run.data.tokenizer.as_ref().unwrap().to_string(), "hf://EleutherAI/gpt-neox-20B");
    assert_eq!((run.eval_column(), run.eval.n_samples), ("input_ids", None));
    assert!(run.data.shuffle_buffer.get() > 10_000);

    // Another split is other data, and all of it may be evaluated on.
    let Imported { run, warnings } = import(&[
        ("split: train\n  n_ctx: 1024\nsaes", "split: validation\n  n_ctx: 1024\nsaes"),
        ("eval_n_samples: 500", "eval_n_samples: null"),
    ])
    .unwrap();
    assert_eq!((run.eval.split.as_deref(), run.eval.n_samples), (Some("validation"), None));
    assert_eq!(run.data.skip, 0);
    assert!(!warnings.iter().any(|warning| warning.contains("held out")), "{warnings:?}");

    let error = import(&[("n_ctx: 1024\nsaes", "n_ctx: 512\nsaes")]).unwrap_err().to_string();
    assert!(error.contains("eval_data.n_ctx is 512") && error.contains("1024"), "{error}");

    // No evaluation data at all, no number of samples.
    let start = text().find("eval_data:").unwrap();
    let end = text().find("saes:").unwrap();
    let without = text().replace(&text()[start..end], "eval_data: null\n");
    let without = without
        .replace("n_samples: 400_000", "n_samples: null")
        .replace("lr_schedule: cosine", "lr_schedule: linear")
        .replace("eval_every_n_samples: 40_000", "eval_every_n_samples: null");
    let Imported { run, warnings } = reference::parse(&without, "run.yaml", &mut twelve).unwrap();
    assert_eq!((run.data.skip, run.eval.n_samples, run.train.n_samples), (500, Some(500), None));
    let held_out = "eval_data: null: the first 500 windows of the training data are held out for the evaluation";
    assert!(warnings.iter().any(|warning| warning == held_out), "{warnings:?}");
    assert_eq!(run.train.schedule.kind, ScheduleKind::Linear);
}

#[test]
fn pretrained_saes_and_models_of_ones_own() {
    let Imported { run, .. } = import(&[
        ("pretrained_sae_paths: null", "pretrained_sae_paths: out/a.pt"),
        ("retrain_saes: false", "retrain_saes: true"),
        ("tlens_model_name: gpt2-small", "tlens_model_name: null"),
        ("tlens_model_path: null", "tlens_model_path: out/epoch_3.pt"),
    ])
    .unwrap();
    assert_eq!(run.sae.pretrained, [Source::Local("out/a.pt".into())]);
    assert!(run.sae.retrain);
    assert_eq!(run.model.path, Source::Local("out/epoch_3.pt".into()));
    // The reference loads such a model as it is.
    assert_eq!(run.model.processing, Processing::None);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("final_config.yaml");
    std::fs::write(
        &path,
        "name: tiny\nseed: 0\ntlens_config:\n  act_fn: gelu\n  d_head: 4\n  d_model: 8\n  d_vocab: 50\n  dtype: float32\n  \
         n_ctx: 16\n  n_layers: 2\n  tokenizer_name: gpt2\ntrain:\n  lr: 0.001\n",
    )
    .unwrap();
    let found = TlensConfig::load(&path).unwrap();
    assert_eq!((found.d_model, found.d_head, found.act_fn.as_str()), (8, 4, "gelu"));
}

#[test]
fn what_a_file_describes_is_told() {
    let kinds = [
        ("gpt2_e2e_recon.yaml", Kind::Run),
        ("sweep.yaml", Kind::Sweep),
        ("tiny_gpt2.yaml", Kind::LanguageModel),
        ("mnist.yaml", Kind::Mnist),
    ];
    for (name, kind) in kinds {
        assert_eq!(reference::kind(&fixture(name)).unwrap(), kind, "{name}");
    }
    let refused = |error: ConfigError, expected: &str| {
        let error = error.to_string();
        assert!(error.ends_with(expected) && !error.contains("did you mean"), "{error}");
    };
    let run = |name: &str| reference::load(&fixture(name), &mut twelve).unwrap_err();
    refused(run("mnist.yaml"), "it is for MLPs on MNIST, which this software does not train");
    for (name, expected) in [
        ("tiny_gpt2.yaml", "it describes the training of a language model: `sae pretrain "),
        ("sweep.yaml", "it describes a sweep of runs: `sae sweep "),
    ] {
        let error = run(name).to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    let model = |name: &str| {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        reference::parse_language_model(&text, "x.yaml").unwrap_err()
    };
    refused(
        model("gpt2_e2e_recon.yaml"),
        "it describes the training of SAEs: `sae train x.yaml --out FOLDER`",
    );
    refused(model("mnist.yaml"), "which this software does not train");
}

#[test]
fn mistakes_are_named() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("max_grad_norm: 10.0", "max_grad_nrm: 10.0", &["max_grad_nrm", "`max_grad_norm`?"]),
        ("n_samples: 400_000", "n_samples: many", &["`many` is not a number"]),
        ("batch_size: 8", "batch_size: 0", &["batch_size is 0"]),
        ("batch_size: 8", "batch_size: 7", &["multiple", "7"]),
        ("coeff: 1.5", "coeff: -1.5", &["loss.sparsity.coeff is -1.5"]),
        ("lr_schedule: cosine", "lr_schedule: step", &["step", "cosine"]),
        ("tlens_model_path: null", "tlens_model_path: x.pt", &["exactly one"]),
        ("seed: 3", "seed: [", &["run.yaml"]),
    ];
    for (from, to, parts) in cases {
        let error = import(&[(from, to)]).unwrap_err().to_string();
        for part in *parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    }
}

#[test]
fn a_sweep_is_expanded_over_its_base() {
    let bank = NonZeroUsize::new(4).unwrap();
    let (expanded, warnings) =
        reference::expand(&fixture("sweep.yaml"), bank, 6, &mut twelve).unwrap();
    assert_eq!(expanded.sweep, "gpt2-sweep");
    // Those of its runs, each once.
    assert_eq!(warnings, import(&[]).unwrap().warnings);
    let ids: Vec<&str> = expanded.runs().map(|run| run.id.as_str()).collect();
    assert_eq!(ids[0], "e2e_seed-0_sparsity-0.8");
    assert_eq!(ids.len(), 6);
    for run in expanded.runs() {
        assert_eq!(run.config.variant(), Variant::E2e);
        assert_eq!(run.config.sae.sites, [Site::resid_pre(10)]);
        assert_eq!(run.config.loss.kl.unwrap().coeff.get(), 1.0);
        // The reference's seed orders the data too: only runs of one seed share a bank.
        assert_eq!(run.config.sae.seed, run.config.data.seed);
    }
    assert_eq!(expanded.jobs.len(), 2);
    assert!(expanded.jobs.iter().all(|job| job.len() == 3));

    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("sweep.yaml")).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from));
        let path = folder.path().join("sweep.yaml");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        reference::expand(&path, bank, 6, &mut twelve).unwrap_err().to_string()
    };
    let error = refused("method: grid", "method: bayes");
    assert!(error.contains("`bayes`") && error.contains("grid"), "{error}");
    // The base is looked for beside the sweep too, and is not there.
    let error = refused("method: grid", "method: grid ");
    assert!(error.contains("gpt2_e2e_recon.yaml") && error.contains("not there"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "\\PC{0,200}") {
        let _ = reference::parse(&text, "x.yaml", &mut twelve);
        let _ = reference::parse_language_model(&text, "x.yaml");
        let _ = RunConfig::parse(&text, "x.toml");
        let _ = PretrainConfig::parse(&text, "x.toml");
        let _ = SweepConfig::parse(&text, "x.toml");
    }

    #[test]
    fn a_damaged_configuration_is_one_or_an_error(
        cut in 0.0..1.0_f64,
        inserted in "[\\[\\]{}:,\"'#|>&*! \n0-9a-z_-]{0,12}",
    ) {
        let toml = import(&[]).unwrap().run.to_toml().unwrap();
        for (text, yaml) in [(text(), true), (toml, false)] {
            let mut at = (text.len() as f64 * cut) as usize;
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let damaged = format!("{}{inserted}{}", &text[..at], &text[at..]);
            if yaml {
                let _ = reference::parse(&damaged, "x.yaml", &mut twelve);
            } else {
                let _ = RunConfig::parse(&damaged, "x.toml");
            }
        }
    }

    #[test]
    fn any_source_is_a_path_a_repository_or_an_error(text in "(hf://)?[a-z/@.%2F ]{0,24}") {
        if let Ok(source) = text.parse::<Source>() {
            prop_assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
        }
    }
}
