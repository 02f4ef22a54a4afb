//! Pretraining: an interrupted one goes on to the same bits; the card says what was measured.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/interrupt.rs"]
mod interrupt;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use sae_config::PretrainConfig;
use sae_data::{ShardSet, StreamOptions, TextTokenizer, TokenStream, prepare, train_tokenizer};
use sae_train::TrainError;
use sae_train::pretrain::pretrain;
use sae_train::progress::Silent;
use tch::Device;

use interrupt::Interrupt;

/// Text shards of small functions, a tokeniser, and a configuration.
fn config(place: &Path) -> PretrainConfig {
    tch::set_num_threads(1);
    for (name, n) in [("train", 60), ("validation", 30)] {
        let files: Vec<PathBuf> = (0..n)
            .map(|file| {
                let path = place.join(format!("{name}-{file}.rs"));
                let line = format!("fn {name}_{file}(x: u32) -> u32 {{ x * {file} + {file} }}\n");
                std::fs::write(&path, line.repeat(30)).unwrap();
                path
            })
            .collect();
        prepare::text_shards(&files, "text", &place.join(name)).unwrap();
    }
    let shards = ShardSet::open(&place.join("train"), "text").unwrap();
    train_tokenizer(&shards, 280, &place.join("tokenizer")).unwrap();
    let toml = format!(
        r#"
        about = "Functions of the test."
        model = {{ n_layers = 1, d_model = 16, n_heads = 2, context_length = 16 }}
        data = {{ train = {:?}, validation = {:?}, column = "text", tokenizer = {:?}, shuffle_buffer = 64 }}
        train = {{ n_steps = 12, batch_size = 4, lr = 1e-2, warmup_steps = 2, min_lr_factor = 0.1, weight_decay = 0.1, max_grad_norm = 1.0 }}
        "#,
        place.join("train"),
        place.join("validation"),
        place.join("tokenizer"),
    );
    let path = place.join("pretrain.toml");
    std::fs::write(&path, toml).unwrap();
    PretrainConfig::load(&path).unwrap()
}

#[test]
fn an_interrupted_pretraining_goes_on_to_the_same_bits() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let (whole, broken) = (place.path().join("whole"), place.path().join("broken"));
    let result = pretrain(&config, &whole, Device::Cpu, &mut Silent).unwrap();

    let mut interrupt = Interrupt { after: 5, done: 0 };
    let error = pretrain(&config, &broken, Device::Cpu, &mut interrupt).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted { step: 5 }), "{error}");
    let mut other = config.clone();
    other.model.seed = 7;
    let error = pretrain(&other, &broken, Device::Cpu, &mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("pretrain.toml"),
        "another configuration does not go on from it: {error}"
    );
    assert_eq!(pretrain(&config, &broken, Device::Cpu, &mut Silent).unwrap(), result);
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&broken) && !broken.join("checkpoint").exists());

    let card = std::fs::read_to_string(whole.join("README.md")).unwrap();
    let loss = format!("{:.4} nats", result.validation_loss);
    assert!(card.contains("Functions of the test.") && card.contains(&loss), "{card}");
}

/// Epochs are counted in windows, those held out left out; the recorded configuration has the steps that they come to.
#[test]
fn epochs_of_windows_beside_held_out_ones() {
    let place = tempfile::tempdir().unwrap();
    let given = config(place.path());
    let tokenizer = TextTokenizer::load(&place.path().join("tokenizer")).unwrap();
    let own = r#"{"eos_token": "<|endoftext|>"}"#;
    std::fs::write(place.path().join("tokenizer/tokenizer_config.json"), own).unwrap();
    let windows = |bos: bool| {
        let options = StreamOptions { bos, ..StreamOptions::in_order(16, tokenizer.vocabulary()) };
        let tokenizer = Some(tokenizer.clone());
        TokenStream::open(&place.path().join("train"), "text", tokenizer, options).unwrap().count()
    };
    // A window that begins with BOS has one token less of the text.
    assert!(windows(true) > windows(false) + 10);
    let mut config = given.clone();
    config.data.validation = config.data.train.clone();
    (config.data.skip, config.data.bos) = (70, true);
    (config.train.n_steps, config.train.n_epochs) = (None, NonZeroUsize::new(1));
    config.train.max_grad_norm = None;
    let out = place.path().join("out");
    let mut interrupt = Interrupt { after: 3, done: 0 };
    let error = pretrain(&config, &out, Device::Cpu, &mut interrupt).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted { step: 3 }), "{error}");
    let result = pretrain(&config, &out, Device::Cpu, &mut Silent).unwrap();
    let steps = (windows(true) - 70) / 4;
    assert_eq!(result.training_tokens as usize, steps * 4 * 16);
    // 70 windows are two batches of 32, with 15 predictions a window.
    assert_eq!(result.validation_tokens, 64 * 15);
    let recorded = PretrainConfig::load(&out.join("pretrain.toml")).unwrap();
    assert_eq!(recorded.n_steps() as usize, steps);
    assert!(recorded.train.n_epochs.is_none() && recorded.data == config.data);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.contains("without its first 70 windows") && card.contains(", its first 70 windows")
    );
    assert_eq!(std::fs::read_to_string(out.join("tokenizer_config.json")).unwrap(), own);
}

/// What would fail after the training fails before it.
#[test]
fn data_that_does_not_do_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let given = config(place.path());
    let out = place.path().join("out");
    let refused = |change: &dyn Fn(&mut PretrainConfig)| {
        let mut config = given.clone();
        change(&mut config);
        let error = pretrain(&config, &out, Device::Cpu, &mut Silent).unwrap_err().to_string();
        assert!(!out.exists(), "{error}");
        error
    };
    let error = refused(&|config| config.data.validation = config.data.train.clone());
    assert!(error.contains("is the training data"), "{error}");
    let error = refused(&|config| {
        config.data.validation = config.data.train.clone();
        config.data.skip = 31;
    });
    assert!(error.contains("31 windows") && error.contains("32 are needed"), "{error}");
    let error = refused(&|config| {
        config.data.skip = 1_000_000;
        (config.train.n_steps, config.train.n_epochs) = (None, NonZeroUsize::new(2));
    });
    assert!(error.contains("after those that data.skip leaves out"), "{error}");
    let error = refused(&|config| {
        (config.train.n_steps, config.train.n_epochs) = (None, NonZeroUsize::new(1 << 40));
    });
    assert!(error.contains("train.n_steps") && error.contains("is the most"), "{error}");
}

/// The model's folder may be the tokeniser's, however it is spelt.
#[test]
fn a_tokeniser_in_its_place_survives() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let out = place.path().join("validation/../tokenizer");
    pretrain(&config, &out, Device::Cpu, &mut Silent).unwrap();
    assert!(std::fs::metadata(out.join("tokenizer.json")).unwrap().len() > 1000);
}
