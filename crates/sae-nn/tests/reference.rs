//! SAEs as the reference saves them, and their way into this project's format.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};

use sae_nn::weights::{self, NamedDictionary, Provenance};
use sae_nn::{Dictionary, Sizes, reference};
use sae_tensors::TensorFiles;
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/e2e_sae").join(name)
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, bound: f64) {
    assert_eq!(a.size(), b.size());
    let difference = (a - b).abs().max().double_value(&[]);
    assert!(difference <= bound, "differs by {difference}");
}

fn compare(sae: &Dictionary, hook_name: &str) {
    let expected = TensorFiles::open(&fixture("expected.safetensors")).unwrap();
    let get = |name: &str| expected.read(name).unwrap();
    let out = sae.forward(&get("x")).unwrap();
    close(&out.features, &get(&format!("{hook_name}.c")), 1e-5);
    close(&out.reconstruction, &get(&format!("{hook_name}.x_hat")), 1e-5);
}

fn name(named: &NamedDictionary) -> &str {
    named.hook_name.as_deref().unwrap()
}

#[test]
fn a_published_sae_leaves_its_site_to_its_configuration() {
    let path = fixture("e2e_similar_ce_layer_6.pt");
    let saes = reference::load(&path, Device::Cpu, Kind::Float).unwrap();
    assert_eq!((saes.len(), &saes[0].hook_name), (1, &None));
    compare(&saes[0].dictionary, "blocks.2.hook_resid_pre");
}

#[test]
fn a_state_dict_computes_what_the_reference_computes() {
    let saes = reference::load(&fixture("samples_400.pt"), Device::Cpu, Kind::Float).unwrap();
    let names: Vec<&str> = saes.iter().map(name).collect();
    assert_eq!(names, ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]);
    for named in &saes {
        assert_eq!(named.dictionary.sizes(), Sizes::sae(32, 64));
        compare(&named.dictionary, name(named));
    }
}

#[test]
fn converted_it_still_does() {
    let folder = tempfile::tempdir().unwrap();
    for named in weights::load_all(&fixture("samples_400.pt"), Device::Cpu, Kind::Float).unwrap() {
        let provenance = Provenance {
            model: "m",
            hook_name: name(&named),
            hook_name_out: None,
            context_length: 8,
            processed: true,
        };
        let own = folder.path().join("sae").join(name(&named));
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        weights::save(&named.dictionary, provenance, &own).unwrap();
    }
    let cfg = folder.path().join("sae/blocks.2.hook_resid_pre/cfg.json");
    let cfg = std::fs::read_to_string(cfg).unwrap();
    assert!(cfg.contains("\"model_from_pretrained_kwargs\"") && cfg.contains("fold_ln"), "{cfg}");
    // A folder with several SAEs, as a run's is, and one alone.
    let again = weights::load_all(folder.path(), Device::Cpu, Kind::Float).unwrap();
    assert_eq!(again.len(), 2);
    for named in &again {
        compare(&named.dictionary, name(named));
    }
    let one = folder.path().join("sae/blocks.2.hook_resid_pre");
    let one = weights::load_all(&one, Device::Cpu, Kind::Float).unwrap();
    assert_eq!((one.len(), name(&one[0])), (1, "blocks.2.hook_resid_pre"));
}

#[test]
fn other_files_are_refused() {
    let refused =
        |path: &Path| weights::load_all(path, Device::Cpu, Kind::Float).unwrap_err().to_string();
    let error = refused(&fixture("views.pt"));
    assert!(error.contains("no tensor is named <site>.encoder.0.weight"), "{error}");
    let error = refused(&fixture("not_a_zip.pt"));
    assert!(error.contains("not_a_zip.pt"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sae")).unwrap();
    assert!(refused(folder.path()).contains("holds no SAE"));

    // Shapes that do not belong together.
    let saes = reference::load(&fixture("samples_400.pt"), Device::Cpu, Kind::Float).unwrap();
    let folder = folder.path().join("x");
    let provenance = Provenance {
        model: "m",
        hook_name: "h",
        hook_name_out: None,
        context_length: 8,
        processed: false,
    };
    weights::save(&saes[0].dictionary, provenance, &folder).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    Tensor::write_safetensors(
        &[
            ("W_enc", zeros(&[32, 64])),
            ("b_enc", zeros(&[63])),
            ("W_dec", zeros(&[64, 32])),
            ("b_dec", zeros(&[32])),
        ],
        folder.join("sae_weights.safetensors"),
    )
    .unwrap();
    assert!(refused(&folder).contains("do not belong to one SAE"));
    Tensor::write_safetensors(&[("W_enc", zeros(&[32]))], folder.join("sae_weights.safetensors"))
        .unwrap();
    assert!(refused(&folder).contains("expected [D, F]"));
}
