//! The reference's language models, as pretrainings; and what a pretraining may be.

use std::num::NonZeroUsize;
use std::path::Path;

use sae_config::reference::{self, ImportedModel};
use sae_config::{ConfigError, PretrainConfig};

use super::fixture;

fn import_model(edits: &[(&str, &str)]) -> Result<ImportedModel, ConfigError> {
    let mut text = std::fs::read_to_string(fixture("tiny_gpt2.yaml")).unwrap();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    reference::parse_language_model(&text, "lm.yaml")
}

#[test]
fn a_language_model_becomes_a_pretraining() {
    let ImportedModel { config, warnings } = import_model(&[]).unwrap();
    assert_eq!(
        config.to_toml().unwrap(),
        "about = \"Trained after `tiny-gpt2`, a configuration of e2e_sae.\"\n\n\
         [model]\nn_layers = 2\nd_model = 4\nn_heads = 1\ncontext_length = 1024\nseed = 0\n\n\
         [data]\ntrain = \"hf://NeelNanda/pile-10k\"\nvalidation = \"hf://NeelNanda/pile-10k\"\nskip = 512\n\
         column = \"text\"\ntokenizer = \"hf://openai-community/gpt2\"\nbos = true\nshuffle_buffer = 16384\nseed = 0\n\n\
         [train]\nn_epochs = 3\nbatch_size = 16\nlr = 0.001\nwarmup_steps = 0\nmin_lr_factor = 1.0\n\
         weight_decay = 0.0\n"
    );
    assert_eq!(PretrainConfig::parse(&config.to_toml().unwrap(), "toml").unwrap(), config);
    assert_eq!(
        warnings,
        [
            "without a meaning here, left out: wandb_project, tlens_config.d_vocab, train.save_every_n_epochs (the model \
             is written to --out once it is trained, and has as many ids as its tokeniser)",
            "the model is GPT-2 as its authors made it: it has one matrix for embedding and unembedding, and their \
             initialisation; the reference trains an unembedding of its own, with a bias, and initialises as \
             TransformerLens does",
            "tlens_config.act_fn: gelu is the exact GELU in the reference; here it is GPT-2's tanh approximation, gelu_new",
            "Adam's second beta is 0.95 here, 0.999 in the reference",
            "the reference validates on nothing: here the first 512 windows are held out for it",
            "the reference shuffles all windows anew in every epoch; here they pass through a shuffle buffer of 16384 \
             windows",
            "text is tokenised document by document; the reference joins the documents and tokenises them in 20 chunks, \
             so that most windows begin elsewhere",
        ]
    );
    let without = warnings.len();

    let ImportedModel { config, warnings } = import_model(&[
        ("d_model: 4", "d_model: 1_2"),
        ("n_ctx: 1024", "n_ctx: 128"),
        ("dtype: float32", "dtype: float16"),
        ("effective_batch_size: null", "effective_batch_size: 64"),
        ("warmup_samples: 0", "warmup_samples: 640\n  save_dir: out"),
        ("seed: 0", "seed: 5"),
    ])
    .unwrap();
    let (model, train) = (&config.model, &config.train);
    assert_eq!((model.n_heads.get(), model.context_length.get(), model.seed), (3, 128, 5));
    assert_eq!((train.batch_size.get(), train.warmup_steps, config.data.seed), (64, 10, 5));
    assert_eq!(warnings.len(), without + 3, "{warnings:?}");
    for part in [
        "train.save_dir, train.save_every_n_epochs",
        "tlens_config.dtype: the model is trained in single precision",
        "the windows have 128 tokens here, 1024 in the reference",
        "the 64 windows of a step",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:?}");
    }
    // The approximation's names are not warned of.
    let ImportedModel { warnings, .. } =
        import_model(&[("act_fn: gelu", "act_fn: gelu_new")]).unwrap();
    assert_eq!(warnings.len(), without - 1, "{warnings:?}");
}

#[test]
fn language_models_that_cannot_be_trained_are_refused() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("act_fn: gelu", "act_fn: relu", &["tlens_config.act_fn is `relu`", "gelu_new"]),
        ("d_head: 4", "d_head: 3", &["tlens_config.d_head is 3", "divide tlens_config.d_model, 4"]),
        ("d_head: 4", "d_head: 0", &["tlens_config.d_head is 0"]),
        ("batch_size: null", "batch_size: 24", &["train.effective_batch_size is 24", "16"]),
        ("n_epochs: 3", "n_epochs: 0", &["train.n_epochs is 0"]),
        ("lr: 1e-3", "learning_rate: 1e-3", &["learning_rate"]),
        (
            "tokenizer_name: gpt2",
            "tokenizer_name: /none",
            &["tlens_config.tokenizer_name", "`/none`"],
        ),
        // Sizes beyond what there is.
        ("n_layers: 2", "n_layers: 1001", &["model.n_layers is 1001", "1000 is the most"]),
        ("d_model: 4", "d_model: 65540", &["model.d_model is 65540", "65536 is the most"]),
        ("n_ctx: 1024", "n_ctx: 2000000", &["model.context_length is 2000000", "1048576"]),
        ("batch_size: 16", "batch_size: 2_000_000", &["train.batch_size is 2000000", "1048576"]),
        ("n_epochs: 3", "n_epochs: 2_000_000_000_000", &["train.n_epochs is 2000000000000"]),
    ];
    for (from, to, parts) in cases {
        let error = import_model(&[(from, to)]).unwrap_err().to_string();
        for part in *parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    }
}

/// A checkpoint is gone on with where the recorded configuration is the same text.
#[test]
fn pretraining_configurations_are_written_as_they_were() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let recorded = root.join("data/rust-lm/pretrain.toml");
    let config = PretrainConfig::load_recorded(&recorded).unwrap();
    assert_eq!(config.to_toml().unwrap(), std::fs::read_to_string(&recorded).unwrap());
    let shipped = root.join("configs/pretrain/rust-lm.toml");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    let cases: &[(&str, &str, &[&str])] = &[
        ("n_steps =", "n_epochs = 2\nn_steps =", &["train.n_steps is given with", "exactly one"]),
        ("n_heads = 4", "n_heads = 5", &["model.n_heads is 5", "divide model.d_model, 128"]),
        ("n_heads = 4", "n_heads = 256", &["model.n_heads is 256"]),
        ("shuffle_buffer = 16384", "shuffle_buffer = 4294967296", &["data.shuffle_buffer"]),
        ("column =", "skip = 9007199254740992\ncolumn =", &["data.skip is 9007199254740992"]),
        ("n_steps =", "n_steps = 1099511627777 #", &["train.n_steps is 1099511627777"]),
        ("warmup_steps =", "warmup_steps = 99999999 #", &["train.warmup_steps", "train.n_steps"]),
    ];
    for (from, to, parts) in cases {
        assert!(shipped.contains(from), "{from}");
        let error = PretrainConfig::parse(&shipped.replacen(from, to, 1), "lm.toml").unwrap_err();
        for part in *parts {
            assert!(error.to_string().contains(part), "`{part}` is missing from: {error}");
        }
    }
}

/// What a model is, and what it reads, have no defaults; how it is trained has: an epoch.
#[test]
fn pretraining_needs_sizes_and_data_alone() {
    let text = "[model]\nn_layers = 2\nd_model = 8\nn_heads = 2\ncontext_length = 16\n[data]\ntrain = \"a\"\n\
                validation = \"b\"\ntokenizer = \"c\"\n";
    let config = PretrainConfig::parse(text, "lm.toml").unwrap();
    let train = &config.train;
    assert_eq!((train.n_steps, train.n_epochs), (None, Some(NonZeroUsize::MIN)));
    assert_eq!((train.batch_size.get(), train.lr.get(), train.warmup_steps), (32, 1e-3, 0));
    assert_eq!((train.min_lr_factor.get(), train.weight_decay.get()), (0.1, 0.1));
    assert_eq!((config.data.column.as_str(), config.data.shuffle_buffer.get()), ("text", 4096));
    // Written and read again it is the same.
    let written = config.to_toml().unwrap();
    assert_eq!(PretrainConfig::parse(&written, "written").unwrap(), config);
    // A slip is named before what is missing because of it.
    for (from, to, near) in [("train = ", "tarin = ", "`train`"), ("[data]", "[dat]", "`data`")] {
        let error = PretrainConfig::parse(&text.replacen(from, to, 1), "lm.toml").unwrap_err();
        assert!(error.to_string().contains(&format!("did you mean {near}")), "{error}");
    }
}
