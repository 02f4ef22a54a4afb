//! SAEs that SAELens saved: what can be folded computes what SAELens computes, everything else is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sae_config::Architecture;
use sae_nn::weights::{self, Provenance};
use sae_nn::{Dictionary, Sizes};
use sae_tensors::TensorFiles;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

const CASES: [&str; 12] = [
    "unit",
    "lengths",
    "applied",
    "default",
    "old",
    "scaled",
    "bfloat16",
    "topk",
    "topk_lengths",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saelens").join(name)
}

#[test]
fn folders_of_saelens_compute_what_saelens_computes() {
    let expected = TensorFiles::open(&fixture("expected.safetensors")).unwrap();
    let get = |name: &str| expected.read(name).unwrap().to_kind(Kind::Double);
    for case in CASES {
        let named = weights::load_all(&fixture(case), Device::Cpu, Kind::Double).unwrap().remove(0);
        assert_eq!(named.hook_name.as_deref(), Some("blocks.1.hook_resid_pre"));
        let written = case.contains("transcoder").then_some("blocks.1.hook_mlp_out");
        assert_eq!(named.hook_name_out.as_deref(), written);
        let computes = |dictionary: &Dictionary| {
            let out = dictionary.forward(&get("x")).unwrap();
            for (found, name) in [(&out.reconstruction, "x_hat"), (&out.features, "c")] {
                let wanted = get(&format!("{case}.{name}"));
                let difference = (found - &wanted).abs().max().double_value(&[]);
                assert!(difference < 1e-5, "{case}: {name} differs by {difference}");
                assert!(wanted.abs().max().double_value(&[]) > 0.1);
            }
        };
        computes(&named.dictionary);
        // Written by this software, it has the same tensors, is of the same architecture, and comes back.
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join(case);
        let provenance = Provenance {
            model: "tiny",
            hook_name: "blocks.1.hook_resid_pre",
            hook_name_out: written,
            context_length: 8,
            processed: false,
        };
        weights::save(&named.dictionary, provenance, &folder).unwrap();
        let [theirs, ours] = [fixture(case), folder.clone()].map(|folder| {
            let tensors = TensorFiles::open(&folder.join("sae_weights.safetensors")).unwrap();
            let names: BTreeSet<String> = tensors.names().map(ToOwned::to_owned).collect();
            let config = std::fs::read(folder.join("cfg.json")).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            (names, [config["architecture"].clone(), config["k"].clone(), config["d_out"].clone()])
        });
        if case != "old" {
            assert_eq!(ours, theirs, "{case}");
        }
        computes(&weights::load(&folder, Device::Cpu, Kind::Double).unwrap());
    }
}

/// What a dictionary of every architecture is written as is read as that dictionary, with its options.
#[test]
fn every_architecture_comes_back() {
    let all = [
        r#"{"relu": {}}"#,
        r#"{"topk": {"k": 3}}"#,
        r#"{"batch_topk": {"k": 3}}"#,
        r#"{"matryoshka": {"k": 3, "prefixes": [0.5, 1.0]}}"#,
        r#"{"jumprelu": {"initial_threshold": 0.3, "bandwidth": 0.5}}"#,
    ];
    assert_eq!(all.len(), Architecture::NAMES.len());
    for (options, skip) in all.into_iter().flat_map(|options| [(options, false), (options, true)]) {
        let options: Architecture = serde_json::from_str(options).unwrap();
        let sizes = Sizes { input: 6, output: 6, features: 20, skip };
        let (cpu, kind) = (Device::Cpu, Kind::Float);
        let dictionary = Dictionary::random(&options, sizes, 0, 0, cpu, kind).unwrap();
        tch::manual_seed(3);
        let x = Tensor::randn([50, 6], (kind, cpu));
        dictionary.observe(&dictionary.pass(&x).unwrap().observed).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("sae");
        let provenance = Provenance {
            model: "tiny",
            hook_name: "blocks.1.hook_resid_pre",
            hook_name_out: skip.then_some("blocks.1.hook_mlp_out"),
            context_length: 8,
            processed: false,
        };
        weights::save(&dictionary, provenance, &folder).unwrap();
        let again = weights::load(&folder, cpu, kind).unwrap();
        assert_eq!((again.options(), again.sizes()), (&options, sizes));
        let [before, after] = [&dictionary, &again].map(|own| own.forward(&x).unwrap());
        for (a, b) in
            [(before.features, after.features), (before.reconstruction, after.reconstruction)]
        {
            let difference = (a - b).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{options:?} differs by {difference}");
        }
    }
}

#[test]
fn a_transcoder_says_what_it_writes_and_thresholds_are_one_a_feature() {
    let error = refused("transcoder", |cfg| {
        cfg["metadata"].as_object_mut().unwrap().remove("hook_name_out");
    });
    assert!(error.contains("metadata.hook_name_out is missing"), "{error}");
    // One number for all is what a BatchTopK keeps, in units of unit-norm rows.
    let batch_topk = json!({"batch_topk": {"k": 4}});
    let error = refused("jumprelu", |cfg| cfg["metadata"]["dictionary"] = batch_topk.clone());
    assert!(error.contains("rows that are not of unit length"), "{error}");
    let unit = |threshold: Tensor, dictionary: &Value| {
        let read = |name: &str| {
            let path = fixture("jumprelu").join("sae_weights.safetensors");
            TensorFiles::open(&path).unwrap().read(name).unwrap()
        };
        let w_dec = read("W_dec");
        let lengths = w_dec.norm_scalaropt_dim(2.0, [1], true);
        let tensors = vec![
            ("W_enc", read("W_enc")),
            ("b_enc", read("b_enc")),
            ("W_dec", w_dec / lengths),
            ("b_dec", read("b_dec")),
            ("threshold", threshold),
        ];
        let folder = tempfile::tempdir().unwrap();
        let cfg = std::fs::read(fixture("jumprelu/cfg.json")).unwrap();
        let mut cfg: Value = serde_json::from_slice(&cfg).unwrap();
        cfg["metadata"]["dictionary"] = dictionary.clone();
        std::fs::write(folder.path().join("cfg.json"), cfg.to_string()).unwrap();
        Tensor::write_safetensors(&tensors, folder.path().join("sae_weights.safetensors")).unwrap();
        weights::load(folder.path(), Device::Cpu, Kind::Float).map_err(|error| error.to_string())
    };
    let error = unit(Tensor::arange(20, (Kind::Float, Device::Cpu)), &batch_topk).unwrap_err();
    assert!(error.contains("the same value for every feature of a batch_topk"), "{error}");
    let error = unit(Tensor::ones([19], (Kind::Float, Device::Cpu)), &batch_topk).unwrap_err();
    assert!(error.contains("threshold has shape [19], expected [20]"), "{error}");
    unit(Tensor::full([20], 0.25, (Kind::Float, Device::Cpu)), &batch_topk).unwrap();
    let many = json!({"batch_topk": {"k": 21}});
    let error = refused("jumprelu", |cfg| cfg["metadata"]["dictionary"] = many.clone());
    assert!(error.contains("batch_topk.k is 21") && error.contains("20 elements"), "{error}");
    let ones = Tensor::ones([20], (Kind::Float, Device::Cpu));
    let error = unit(ones, &json!({"relu": {}})).unwrap_err();
    assert!(error.contains("a relu dictionary does not have"), "{error}");
}

/// A copy of a case with an edited `cfg.json`; the error of loading it.
fn refused(case: &str, edit: impl Fn(&mut Value)) -> String {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cfg.json", "sae_weights.safetensors"] {
        std::fs::copy(fixture(case).join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("cfg.json");
    let mut cfg: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut cfg);
    std::fs::write(&path, cfg.to_string()).unwrap();
    weights::load_all(folder.path(), Device::Cpu, Kind::Float).expect_err("accepted").to_string()
}

#[test]
fn what_changes_the_function_is_refused_by_name() {
    let cases: [(&str, Value, &[&str]); 11] = [
        ("architecture", json!("topk"), &["architecture", "topk"]),
        ("activation_fn_str", json!("tanh-relu"), &["activation_fn_str", "tanh-relu"]),
        ("normalize_activations", json!("expected_average_only_in"), &["normalize_activations"]),
        ("normalize_activations", json!("layer_norm"), &["normalize_activations", "layer_norm"]),
        ("normalize_activations", json!(true), &["normalize_activations"]),
        ("reshape_activations", json!("hook_z"), &["reshape_activations", "hook_z"]),
        ("hook_head_index", json!(3), &["hook_head_index"]),
        ("apply_b_dec_to_input", json!("yes"), &["apply_b_dec_to_input", "boolean"]),
        ("d_in", json!(7), &["d_in is 7", "the weights have 6"]),
        ("d_sae", json!(21), &["d_sae is 21", "the weights have 20"]),
        ("dtype", json!("bfloat16"), &["dtype", "bfloat16", "Float"]),
    ];
    for (key, value, words) in cases {
        let error = refused("applied", |cfg| cfg[key] = value.clone());
        for word in words.iter().chain(&["cfg.json"]) {
            assert!(error.contains(word), "`{word}` is missing from: {error}");
        }
    }
    for key in ["hook_head_index", "hook_head_index_out"] {
        let error = refused("applied", |cfg| cfg["metadata"][key] = json!(2));
        assert!(error.contains(key), "{error}");
    }
}

fn loaded(tensors: &[(&str, Tensor)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    // Keys of SAELens's training, as its checkpoints have them, change nothing either.
    let mut cfg: Value =
        serde_json::from_slice(&std::fs::read(fixture("unit/cfg.json")).unwrap()).unwrap();
    cfg["l1_coefficient"] = json!(0.5);
    cfg["decoder_init_norm"] = json!(0.1);
    std::fs::write(folder.path().join("cfg.json"), cfg.to_string()).unwrap();
    Tensor::write_safetensors(tensors, folder.path().join("sae_weights.safetensors")).unwrap();
    let loaded = weights::load_all(folder.path(), Device::Cpu, Kind::Float);
    loaded.map(|_| ()).map_err(|error| error.to_string())
}

fn with_tensors(tensors: &[(&str, Tensor)]) -> String {
    loaded(tensors).expect_err("accepted")
}

fn accepted(tensors: &[(&str, Tensor)]) {
    loaded(tensors).expect("refused");
}

#[test]
fn other_tensors_and_numbers_that_are_none_are_refused() {
    let read = |name: &str| {
        TensorFiles::open(&fixture("unit/sae_weights.safetensors")).unwrap().read(name).unwrap()
    };
    let names = ["W_enc", "b_enc", "W_dec", "b_dec"];
    let mut tensors: Vec<(&str, Tensor)> = names.map(|name| (name, read(name))).into();
    tensors.push(("threshold", read("b_enc")));
    let error = with_tensors(&tensors);
    assert!(error.contains("`threshold`"), "{error}");
    tensors.pop();
    // A factor of ones, as older versions wrote, changes nothing; another one does.
    tensors.push(("scaling_factor", read("b_enc").ones_like()));
    accepted(&tensors);
    tensors.pop();
    tensors.push(("scaling_factor", read("b_enc").ones_like() * 2.0));
    assert!(with_tensors(&tensors).contains("`scaling_factor`"));
    tensors.pop();
    let _ = tensors[1].1.get(5).fill_(f64::NAN);
    let error = with_tensors(&tensors);
    assert!(error.contains("b_enc holds 1 numbers") && error.contains("NaN"), "{error}");
}
