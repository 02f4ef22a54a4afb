//! Every family against `transformers`: activations at every site, final hidden state and logits; weights as
//! TransformerLens processes them; the formats that weights come in; what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use sae_config::run::Processing;
use sae_model::{ModelError, Site, SiteKind, Transformer, load};
use tch::{Device, Kind, Tensor};

const FAMILIES: [&str; 6] =
    ["gpt2_bin", "gpt_neo", "gpt_neox", "gpt_neox_sequential", "llama", "llama_scaled"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn model(name: &str, processing: Processing) -> Transformer {
    load::load(&fixture(name), processing, Device::Cpu, Kind::Float).unwrap()
}

fn stored(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

#[track_caller]
fn close(what: &str, a: &Tensor, b: &Tensor, bound: f64) {
    assert_eq!(a.size(), b.size(), "{what}");
    let difference = (a - b).abs().max().double_value(&[]);
    assert!(difference <= bound, "{what} differs by {difference}");
}

/// Compares every site, the final hidden state and the logits; returns how many sites there were.
fn compare(name: &str, model: &Transformer, expected: &HashMap<String, Tensor>) -> usize {
    let mut seen = 0;
    let embedded = model.embed(&expected["tokens"]).unwrap();
    let sites: BTreeSet<Site> = expected.keys().filter_map(|name| name.parse().ok()).collect();
    let mut compare = |site: Site, x: Tensor| {
        close(&format!("{name} {site}"), &x, &expected[&site.to_string()], 1e-4);
        seen += 1;
        Ok::<_, ModelError>(x)
    };
    let blocks = 0..model.config().n_layers;
    let last = model.run_to_end(blocks, embedded, &sites, &mut compare).unwrap();
    let hidden = model.final_norm(&last).unwrap();
    close(&format!("{name} final hidden"), &hidden, &expected["final_hidden"], 1e-4);
    close(&format!("{name} logits"), &model.logits(&hidden).unwrap(), &expected["logits"], 1e-4);
    seen
}

#[test]
fn every_site_and_the_logits_agree_with_transformers() {
    for name in FAMILIES {
        let (model, expected) =
            (model(name, Processing::None), stored(&fixture(name).join("expected.safetensors")));
        let stored = expected.keys().filter(|key| key.starts_with("blocks.")).count();
        assert_eq!(compare(name, &model, &expected), stored, "{name}");
    }
}

#[test]
fn processed_weights_agree_with_transformer_lens() {
    for name in ["gpt2", "gpt_neo", "gpt_neox", "llama"] {
        let model = model(name, Processing::TransformerLens);
        let expected = stored(&fixture(name).join("processed.safetensors"));
        assert!(compare(name, &model, &expected) >= 21, "{name}");
    }
}

#[test]
fn processing_changes_the_residual_stream_and_not_the_distribution() {
    let name = "gpt_neo";
    let plain = stored(&fixture(name).join("expected.safetensors"));
    // Biases of values that heads share are handed over too.
    let grouped = stored(&fixture("llama_scaled").join("expected.safetensors"));
    let processed = stored(&fixture(name).join("processed.safetensors"));
    let site = "blocks.1.hook_resid_pre";
    let moved = (&plain[site] - &processed[site]).abs().max().double_value(&[]);
    assert!(moved > 1e-2, "the fixture cannot tell processed weights from plain ones: {moved}");
    let log_softmax = |logits: &Tensor| logits.log_softmax(-1, Kind::Float);
    close("log p", &log_softmax(&plain["logits"]), &log_softmax(&processed["logits"]), 1e-4);
    let model = model("llama_scaled", Processing::TransformerLens);
    let embedded = model.embed(&grouped["tokens"]).unwrap();
    let z: Site = "blocks.1.attn.hook_z".parse().unwrap();
    let mut without_bias = None;
    let mut see = |_: Site, x: Tensor| {
        without_bias = Some(x.shallow_clone());
        Ok::<_, ModelError>(x)
    };
    let blocks = 0..model.config().n_layers;
    let last = model.run_to_end(blocks, embedded, &BTreeSet::from([z]), &mut see).unwrap();
    let logits = model.logits(&model.final_norm(&last).unwrap()).unwrap();
    close("log p", &log_softmax(&grouped["logits"]), &log_softmax(&logits), 1e-4);
    let moved = (without_bias.unwrap() - &grouped[&z.to_string()]).abs().max().double_value(&[]);
    assert!(moved > 1e-2, "the values of {z} have no biases: {moved}");
}

#[test]
fn a_parallel_block_has_no_residual_stream_between_attention_and_mlp() {
    let config = load::config(&fixture("gpt_neox")).unwrap();
    assert!(config.sites().all(|site| site.kind != SiteKind::ResidMid));
    assert_eq!(config.sites().count(), 24);
    let site: Site = "blocks.1.hook_resid_mid".parse().unwrap();
    let error = config.check_site(site).unwrap_err().to_string();
    assert!(error.contains("blocks.1.hook_resid_mid"), "{error}");
    for known in ["blocks.0 to blocks.2", "hook_resid_pre", "hook_attn_out", "hook_mlp_out"] {
        assert!(error.contains(known), "{error}");
    }
    assert!(!error.contains("with hook_resid_mid"), "{error}");
    load::config(&fixture("gpt_neox_sequential")).unwrap().check_site(site).unwrap();
}

#[test]
fn a_pass_goes_on_from_any_block_to_the_same_bits() {
    for name in FAMILIES {
        let model = model(name, Processing::None);
        let tokens = &stored(&fixture(name).join("expected.safetensors"))["tokens"];
        let mut middle = None;
        let mut keep = |_: Site, x: Tensor| {
            middle = Some(x.shallow_clone());
            Ok::<_, ModelError>(x)
        };
        let (embedded, n) = (model.embed(tokens).unwrap(), model.config().n_layers);
        let first = BTreeSet::from([Site::resid_pre(1)]);
        let whole = model.run_to_end(0..n, embedded, &first, &mut keep).unwrap();
        let mut nothing = |_: Site, x| Ok::<_, ModelError>(x);
        let rest = model.run_to_end(1..n, middle.unwrap(), &BTreeSet::new(), &mut nothing).unwrap();
        close(name, &whole, &rest, 0.0);
    }
}

fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn refused(name: &str, change: impl FnOnce(&Path)) -> String {
    let copy = copy(name);
    change(copy.path());
    let loaded = load::load(copy.path(), Processing::None, Device::Cpu, Kind::Float);
    loaded.unwrap_err().to_string()
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let file = folder.join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
#[allow(clippy::too_many_lines)] // One table.
fn what_cannot_be_loaded_is_named() {
    let shard = "model-00002-of-00003.safetensors";
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            refused("gpt_neox", |folder| {
                edit(
                    folder,
                    "config.json",
                    "\"model_type\": \"gpt_neox\"",
                    "\"model_type\": \"mamba\"",
                );
            }),
            vec!["`mamba`", "gpt2, gpt_neo, gpt_neox, llama"],
        ),
        (
            refused("gpt_neox", |folder| std::fs::remove_file(folder.join(shard)).unwrap()),
            vec![shard, "cannot open"],
        ),
        (
            refused("gpt_neox", |folder| {
                edit(folder, "model.safetensors.index.json", shard, "../secret.safetensors");
            }),
            vec!["../secret.safetensors", "no plain file name"],
        ),
        (
            refused("gpt_neox", |folder| {
                edit(
                    folder,
                    "model.safetensors.index.json",
                    "gpt_neox.embed_in.weight",
                    "gpt_neox.x",
                );
            }),
            vec!["gpt_neox.x", "does not"],
        ),
        (
            refused("llama", |folder| {
                std::fs::remove_file(folder.join("model.safetensors")).unwrap();
            }),
            vec!["model.safetensors", "pytorch_model.bin.index.json"],
        ),
        (
            refused("llama", |folder| {
                edit(
                    folder,
                    "config.json",
                    "\"num_key_value_heads\": 2",
                    "\"num_key_value_heads\": 4",
                );
            }),
            vec!["4 heads of keys", "6 heads"],
        ),
        (
            refused("llama_scaled", |folder| edit(folder, "config.json", "llama3", "yarn")),
            vec!["yarn", "default, linear, llama3"],
        ),
        (
            refused("gpt_neo", |folder| edit(folder, "config.json", "\"local\"", "\"sparse\"")),
            vec!["sparse", "global"],
        ),
        (
            refused("gpt_neo", |folder| {
                edit(folder, "config.json", "\"num_layers\": 4", "\"num_layers\": 5");
            }),
            vec!["attention_types", "5 layers"],
        ),
        (
            refused("llama", |folder| {
                edit(
                    folder,
                    "config.json",
                    "\"head_dim\"",
                    "\"quantization_config\": {\"bits\": 8}, \"head_dim\"",
                );
            }),
            vec!["quantization_config", "full weights"],
        ),
        (
            refused("llama", |folder| {
                let path = folder.join("model.safetensors");
                let mut tensors = Tensor::read_safetensors(&path).unwrap();
                for (name, tensor) in &mut tensors {
                    if name.contains("q_proj") {
                        *tensor = tensor.to_kind(Kind::Int8);
                    }
                }
                Tensor::write_safetensors(&tensors, &path).unwrap();
            }),
            vec!["q_proj", "Int8", "quantised"],
        ),
        (
            refused("gpt2_bin", |folder| {
                edit(folder, "config.json", "\"n_layer\": 2", "\"n_layer\": 1000000000000000");
            }),
            vec!["1000000000000000 layers", "beyond what there is"],
        ),
        (
            refused("gpt2_bin", |folder| {
                let file = folder.join("pytorch_model-00001-of-00002.bin");
                let bytes = std::fs::read(&file).unwrap();
                std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            }),
            vec!["pytorch_model-00001-of-00002.bin"],
        ),
    ];
    for (error, parts) in cases {
        for part in parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    }
}

#[test]
fn a_rotary_scaling_may_name_its_type_twice() {
    let folder = copy("llama");
    let scaling =
        "\"rope_scaling\": {\"type\": \"linear\", \"rope_type\": \"linear\", \"factor\": 2.0}";
    edit(folder.path(), "config.json", "\"rope_scaling\": null", scaling);
    let config = load::config(folder.path()).unwrap();
    let sae_model::config::Positions::Rotary(rotary) = config.positions else { panic!("learned") };
    assert_eq!(rotary.scaling, sae_model::config::RotaryScaling::Linear { factor: 2.0 });
}

#[test]
fn other_families_are_not_written_as_gpt2() {
    let folder = tempfile::tempdir().unwrap();
    let error = load::save(&model("llama", Processing::None), folder.path(), Kind::Float);
    assert!(error.unwrap_err().to_string().contains("GPT-2's architecture"));
    let error = load::save(&model("gpt2", Processing::TransformerLens), folder.path(), Kind::Float);
    assert!(error.unwrap_err().to_string().contains("unprocessed"));
}

#[test]
fn a_checkpoint_of_transformer_lens_is_the_model_it_was_made_from() {
    let path = fixture("tlens/epoch_1.pt");
    let expected = stored(&fixture("gpt2").join("expected.safetensors"));
    let model = load::load(&path, Processing::None, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(compare("tlens", &model, &expected), 27);
    assert_eq!(model.config(), &load::config(&path).unwrap());

    let folder = copy("tlens");
    edit(folder.path(), "final_config.yaml", "d_head: 8", "d_head: 5");
    let error = load::config(&folder.path().join("epoch_1.pt")).unwrap_err().to_string();
    assert!(error.contains("final_config.yaml") && error.contains("d_head 5"), "{error}");
}
