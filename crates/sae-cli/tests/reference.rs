//! What a user of the reference brings: its YAML, its `.pt` files, models and data sets of the hub.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "../../sae-data/tests/support/hub_server.rs"]
#[allow(dead_code)] // Its other half is for the tests beside it.
mod hub_server;
mod support;

use std::path::PathBuf;

use hub_server::{Server, Shelf, answer};
use support::{crates, fails, model, sae, sae_with, says, stderr, succeeds, windows};
use tempfile::TempDir;

/// Windows of 16 tokens as `data/train-*.parquet` and `data/validation-*.parquet`.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    std::fs::create_dir(place.path().join("data")).unwrap();
    for (name, n, step) in [("train", 120, 7), ("validation", 40, 11)] {
        let folder = place.path().join("made");
        windows(&folder, n, step, 256);
        let to = place.path().join(format!("data/{name}-00000-of-00001.parquet"));
        std::fs::rename(folder.join("shard-00000.parquet"), to).unwrap();
        std::fs::remove_dir(folder).unwrap();
    }
    place
}

/// The fixture's configuration of the reference, on this model and data.
fn yaml(model: &str, data: &str) -> String {
    let path = crates().join("sae-nn/tests/fixtures/e2e_sae/final_config.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let hub = "apollo-research/Skylion007-openwebtext-tokenizer-gpt2";
    assert!(text.contains("gpt2-small") && text.contains(hub));
    text.replace("tlens_model_name: gpt2-small", &format!("tlens_model_name: {model}"))
        .replace("tokenizer_name: gpt2\n", &format!("tokenizer_name: {model}\n"))
        .replace(hub, data)
        .replace("n_samples: 400\n", "n_samples: 80\n")
}

#[test]
fn its_configuration_is_imported_and_trained() {
    let place = place();
    let at = place.path();
    let text = yaml(&model().to_string_lossy(), "data");
    std::fs::write(at.join("run.yaml"), &text).unwrap();
    let imported = sae(&["import", "run.yaml"], at);
    let toml = succeeds(&imported);
    says(&toml, &["processing = \"transformer_lens\"", "n_samples = 80", "skip = 40"]);
    says(&stderr(&imported), &["save_dir", "eval_data.seed", "first 40 windows are held out"]);
    succeeds(&sae(&["import", "run.yaml", "--out", "run.toml"], at));
    let printed = |config: &str| succeeds(&sae(&["train", config, "--print-config"], at));
    assert_eq!(printed("run.yaml"), printed("run.toml"));

    let trained = sae(&["train", "run.yaml", "--out", "runs/one"], at);
    succeeds(&trained);
    let summary = std::fs::read_to_string(at.join("runs/one/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["variant"], &summary["steps"]), (&"e2e+ds".into(), &10.into()));

    // Positions by a part of their names, which needs the model's configuration and no more.
    let some = text
        .replace("  - blocks.1.hook_resid_pre\n  - blocks.2.hook_resid_pre", "  - hook_mlp_out");
    std::fs::write(at.join("some.yaml"), some).unwrap();
    let toml = succeeds(&sae(&["import", "some.yaml"], at));
    says(&toml, &["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out"]);

    // A layer that is not there.
    let other = text.replace("- blocks.2.hook_resid_pre", "- blocks.7.hook_resid_pre");
    std::fs::write(at.join("other.yaml"), other).unwrap();
    let refused = sae(&["train", "other.yaml", "--out", "runs/two"], at);
    fails(&refused, &["blocks.7.hook_resid_pre", "blocks.0 to blocks.2"]);
}

#[test]
fn its_saes_are_evaluated_converted_and_heard() {
    let place = place();
    let at = place.path();
    let fixture = crates().join("sae-nn/tests/fixtures/e2e_sae/samples_400.pt");
    let config = yaml(&model().to_string_lossy(), "data");
    // As its runs leave them, and as they were published.
    std::fs::create_dir_all(at.join("out/run")).unwrap();
    std::fs::copy(&fixture, at.join("out/run/samples_400.pt")).unwrap();
    std::fs::write(at.join("out/run/final_config.yaml"), &config).unwrap();
    let published = fixture.with_file_name("e2e_similar_ce_layer_6.pt");
    std::fs::copy(published, at.join("e2e_similar_ce_layer_6.pt")).unwrap();
    let one_site = config.replace("  - blocks.1.hook_resid_pre\n", "") + "adam_beta1: 0.9\n";
    std::fs::write(at.join("e2e_similar_ce_layer_6.yaml"), one_site).unwrap();

    let evaluate = |what: &str| -> serde_json::Value {
        serde_json::from_str(&succeeds(&sae(&["eval", what], at))).unwrap()
    };
    let found = evaluate("out/run/samples_400.pt");
    assert!(found["l0"].as_f64().unwrap() > 1.0, "{found}");
    assert!(found["ce_spliced"].as_f64().unwrap().is_finite());
    let alone = evaluate("e2e_similar_ce_layer_6.pt");
    assert!(alone["l0"].as_f64() < found["l0"].as_f64(), "{alone}");
    let refused =
        sae(&["eval", "e2e_similar_ce_layer_6.pt", "--config", "out/run/final_config.yaml"], at);
    says(&stderr(&refused), &["does not name its site", "a configuration with one site, not 2"]);

    succeeds(&sae(&["convert", "out/run/samples_400.pt", "--out", "saes"], at));
    for site in ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"] {
        let cfg = std::fs::read_to_string(at.join("saes").join(site).join("cfg.json")).unwrap();
        says(&cfg, &["\"d_sae\": 64", site]);
    }
    // The converted ones are the same to the model.
    says(&stderr(&sae(&["eval", "saes"], at)), &["saes/config.toml is missing", "--config"]);
    let again = sae(&["eval", "saes", "--config", "out/run/final_config.yaml"], at);
    let again: serde_json::Value = serde_json::from_str(&succeeds(&again)).unwrap();
    let ce = |found: &serde_json::Value| found["ce_increase"].as_f64().unwrap();
    assert!((ce(&found) - ce(&again)).abs() < 1e-5, "{} {}", ce(&found), ce(&again));

    let arguments =
        ["generate", "out/run/samples_400.pt", "--prompt", "The quick", "--tokens", "8"];
    let generate = |more: &[&str]| succeeds(&sae(&[&arguments[..], more].concat(), at));
    let shown = generate(&["--top-k", "20", "--top-p", "0.9", "--temperature", "0.8"]);
    says(&shown, &["The quick", "without SAEs", "| with SAEs"]);
    assert_eq!(shown, generate(&["--top-k", "20", "--top-p", "0.9", "--temperature", "0.8"]));
    assert_ne!(shown, generate(&["--seed", "1"]));
    assert_eq!(generate(&["--greedy"]), generate(&["--greedy", "--seed", "1"]));

    let lonely = at.join("lonely");
    std::fs::create_dir(&lonely).unwrap();
    std::fs::copy(&fixture, lonely.join("x.pt")).unwrap();
    let refused = sae(&["eval", "lonely/x.pt"], at);
    says(&stderr(&refused), &["x.yaml", "final_config.yaml", "--config"]);
}

#[test]
fn a_model_of_ones_own_and_pretrained_saes() {
    let place = place();
    let at = place.path();
    let fixtures = crates().join("sae-model/tests/fixtures/tlens").canonicalize().unwrap();
    let saes =
        crates().join("sae-nn/tests/fixtures/e2e_sae/samples_400.pt").canonicalize().unwrap();
    let text = yaml("null", "data")
        .replace("tokenizer_name: null", "tokenizer_name: gpt2")
        .replace(
            "tlens_model_path: null",
            &format!("tlens_model_path: {}", fixtures.join("epoch_1.pt").display()),
        )
        .replace("pretrained_sae_paths: null", &format!("pretrained_sae_paths: {}", saes.display()))
        .replace("  - blocks.1.hook", "  - blocks.0.hook_mlp_out\n  - blocks.1.hook");
    std::fs::write(at.join("run.yaml"), text).unwrap();
    succeeds(&sae(&["train", "run.yaml", "--out", "runs/one"], at));
    let config = std::fs::read_to_string(at.join("runs/one/config.toml")).unwrap();
    says(&config, &["epoch_1.pt", "samples_400.pt", "blocks.0.hook_mlp_out"]);
}

/// Files as a shelf of the hub takes them.
fn slices<'a>(files: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'static str, &'a [u8])> {
    files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect()
}

#[test]
fn models_and_data_come_from_the_hub() {
    let place = place();
    let at = place.path();
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let model_files = ["config.json", "model.safetensors", "tokenizer.json"]
        .map(|name| (name, read(model().join(name))));
    let data_files =
        ["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]
            .map(|name| (name, read(at.join(name))));
    let sae_files =
        [("e2e_layer_1.pt", read(crates().join("sae-nn/tests/fixtures/e2e_sae/samples_400.pt")))];
    let config = yaml("lab/tiny", "lab/windows");
    let mut saes = slices(&sae_files);
    saes.push(("e2e_layer_1.yaml", config.as_bytes()));
    let shelves = vec![
        Shelf::new("models", "lab/tiny", &slices(&model_files)),
        Shelf::new("datasets", "lab/windows", &slices(&data_files)),
        Shelf::new("models", "lab/saes", &saes),
    ];
    let server = Server::start(move |request| answer(&shelves, request));
    for (name, _) in &data_files {
        std::fs::remove_file(at.join(name)).unwrap();
    }
    std::fs::write(at.join("run.yaml"), &config).unwrap();

    let offline = sae(&["train", "run.yaml", "--out", "runs/one"], at);
    fails(&offline, &["lab/tiny", "HF_HUB_OFFLINE"]);

    let online = [("HF_ENDPOINT", server.url.as_str()), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")];
    succeeds(&sae_with(&["train", "run.yaml", "--out", "runs/one"], at, &online));
    let config = std::fs::read_to_string(at.join("runs/one/config.toml")).unwrap();
    // With the commits that the branches stood for.
    let commit = "a1".repeat(20);
    let (tiny, windows) = (
        format!("path = \"hf://lab/tiny:{commit}\""),
        format!("train = \"hf://lab/windows:{commit}\""),
    );
    says(&config, &[&tiny, &windows, "skip = 40"]);
    let evaluated = sae_with(&["eval", "hf://lab/saes/e2e_layer_1.pt"], at, &online);
    says(&succeeds(&evaluated), &["ce_increase"]);

    // All is in the cache now.
    let before = server.requests().len();
    succeeds(&sae(&["train", "run.yaml", "--out", "runs/two"], at));
    succeeds(&sae(&["eval", "hf://lab/saes/e2e_layer_1.pt"], at));
    assert_eq!(server.requests().len(), before);
    let metrics = |run: &str| std::fs::read_to_string(at.join(run).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics("runs/one"), metrics("runs/two"));

    // A data set of the hub as an option.
    let other = ["eval", "runs/one", "--data", "hf://lab/windows", "--split", "validation"];
    says(&succeeds(&sae_with(&other, at, &online)), &["ce_increase"]);
    let mixed = sae_with(&["eval", "runs/one", "--data", "hf://lab/windows"], at, &online);
    says(&stderr(&mixed), &["several splits: train, validation", "--split"]);
    let prepared = ["prepare", "--shards", "hf://lab/windows", "--split", "train", "--tokenizer"];
    let rest = ["hf://lab/tiny", "--context-length", "8", "--out", "made"];
    let refused = sae_with(&[&prepared[..], &rest[..]].concat(), at, &online);
    says(&stderr(&refused), &["no column `text`", "input_ids"]);

    let missing = yaml("lab/nothing", "lab/windows");
    std::fs::write(at.join("missing.yaml"), missing).unwrap();
    let refused = sae_with(&["train", "missing.yaml", "--out", "runs/three"], at, &online);
    fails(&refused, &["lab/nothing", "404"]);
}

#[test]
fn a_run_goes_on_with_the_commits_that_it_began_with() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = place();
    let at = place.path();
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let files = ["config.json", "model.safetensors", "tokenizer.json"]
        .map(|name| (name, read(model().join(name))));
    let before = vec![Shelf::new("models", "lab/tiny", &slices(&files))];
    // Later, the branch stands for another commit, of a model that cannot be used.
    let mut moved =
        Shelf::new("models", "lab/tiny", &[("config.json", b"{}"), ("model.safetensors", b"")]);
    moved.commit = "b2".repeat(20);
    let after = vec![moved];
    let has_moved = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&has_moved);
    let server = Server::start(move |request| {
        answer(if flag.load(Ordering::SeqCst) { &after } else { &before }, request)
    });
    let online = [("HF_ENDPOINT", server.url.as_str()), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")];
    std::fs::write(at.join("run.yaml"), yaml("lab/tiny", "data")).unwrap();
    succeeds(&sae_with(&["train", "run.yaml", "--out", "run"], at, &online));
    has_moved.store(true, Ordering::SeqCst);
    let asked = server.requests().len();
    std::fs::remove_file(at.join("run/summary.json")).unwrap();
    succeeds(&sae_with(&["train", "run.yaml", "--out", "run"], at, &online));
    succeeds(&sae_with(&["eval", "run"], at, &online));
    assert_eq!(server.requests().len(), asked, "a commit's files are known and here");
    // A new run begins with what the branch stands for now.
    let refused = sae_with(&["train", "run.yaml", "--out", "other"], at, &online);
    says(&stderr(&refused), &["config.json", "model_type is missing"]);
}

#[test]
fn its_other_files_become_a_pretraining_or_say_what_they_are() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    for name in ["tiny_gpt2.yaml", "mnist.yaml"] {
        let fixture = crates().join("sae-config/tests/fixtures/reference").join(name);
        std::fs::copy(fixture, at.join(name)).unwrap();
    }
    let imported = sae(&["import", "tiny_gpt2.yaml"], at);
    says(&succeeds(&imported), &["[model]", "d_model = 4", "n_epochs = 3", "NeelNanda/pile-10k"]);
    says(&stderr(&imported), &["gelu", "wandb_project"]);
    fails(&sae(&["train", "tiny_gpt2.yaml", "--out", "x"], at), &["sae pretrain tiny_gpt2.yaml"]);
    for command in [&["import", "mnist.yaml"][..], &["train", "mnist.yaml", "--out", "x"]] {
        fails(&sae(command, at), &["mnist.yaml", "MNIST", "does not train"]);
    }
}

#[test]
fn a_pretraining_keeps_the_commits_that_it_began_with() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let files: Vec<PathBuf> = (0..40)
        .map(|file| {
            let path = at.join(format!("{file}.txt"));
            std::fs::write(&path, format!("let value_{file} = {file} * {file};\n").repeat(30))
                .unwrap();
            path
        })
        .collect();
    sae_data::prepare::text_shards(&files, "text", &at.join("text")).unwrap();
    let shard = std::fs::read(at.join("text/shard-00000.parquet")).unwrap();
    let shelves = vec![Shelf::new("datasets", "lab/text", &[("data/train-0.parquet", &shard)])];
    let server = Server::start(move |request| answer(&shelves, request));
    let online = [("HF_ENDPOINT", server.url.as_str()), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")];
    let toml = format!(
        r#"
        model = {{ n_layers = 1, d_model = 8, n_heads = 2, context_length = 8 }}
        data = {{ train = "hf://lab/text", validation = "hf://lab/text", skip = 40, column = "text",
            tokenizer = {:?}, shuffle_buffer = 8 }}
        train = {{ n_steps = 2, batch_size = 4, lr = 1e-2, warmup_steps = 0, min_lr_factor = 0.1, weight_decay = 0.0,
            max_grad_norm = 1.0 }}
        "#,
        model()
    );
    std::fs::write(at.join("lm.toml"), toml).unwrap();
    succeeds(&sae_with(&["pretrain", "lm.toml", "--out", "lm"], at, &online));
    let recorded = std::fs::read_to_string(at.join("lm/pretrain.toml")).unwrap();
    says(&recorded, &[&format!("train = \"hf://lab/text:{}\"", "a1".repeat(20))]);
}
