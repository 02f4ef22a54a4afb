//! SAEs as the reference saves them, and their way into this project's format.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};

use sae_nn::weights::{self, Provenance};
use sae_nn::{Sae, reference};
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

fn compare(sae: &Sae, hook_name: &str) {
    let expected = TensorFiles::open(&fixture("expected.safetensors")).unwrap();
    let get = |name: &str| expected.read(name).unwrap();
    let out = sae.forward(&get("x")).unwrap();
    close(&out.features, &get(&format!("{hook_name}.c")), 1e-5);
    close(&out.reconstruction, &get(&format!("{hook_name}.x_hat")), 1e-5);
}

#[test]
fn a_state_dict_computes_what_the_reference_computes() {
    let saes = reference::load(&fixture("samples_400.pt"), Device::Cpu, Kind::Float).unwrap();
    let names: Vec<&str> = saes.iter().map(|sae| sae.hook_name.as_str()).collect();
    assert_eq!(names, ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]);
    for named in &saes {
        assert_eq!((named.sae.d_model(), named.sae.n_features()), (32, 64));
        compare(&named.sae, &named.hook_name);
    }
}

#[test]
fn converted_it_still_does() {
    let folder = tempfile::tempdir().unwrap();
    for named in weights::load_all(&fixture("samples_400.pt"), Device::Cpu, Kind::Float).unwrap() {
        let provenance = Provenance { model: "m", hook_name: &named.hook_name, context_length: 8 };
        let own = folder.path().join("sae").join(&named.hook_name);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        weights::save(&named.sae, provenance, &own).unwrap();
    }
    // A folder with several SAEs, as a run's is, and one alone.
    let again = weights::load_all(folder.path(), Device::Cpu, Kind::Float).unwrap();
    assert_eq!(again.len(), 2);
    for named in &again {
        compare(&named.sae, &named.hook_name);
    }
    let one = folder.path().join("sae/blocks.2.hook_resid_pre");
    let one = weights::load_all(&one, Device::Cpu, Kind::Float).unwrap();
    assert_eq!((one.len(), one[0].hook_name.as_str()), (1, "blocks.2.hook_resid_pre"));
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
    let provenance = Provenance { model: "m", hook_name: "h", context_length: 8 };
    weights::save(&saes[0].sae, provenance, &folder).unwrap();
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
