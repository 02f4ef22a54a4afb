//! Files of tensors as others write them, and as nobody should: what is read, what is refused, and that nothing panics.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sae_tensors::TensorFiles;
use tch::{Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-nn/tests/fixtures/e2e_sae").join(name)
}

fn refused(path: &Path) -> String {
    TensorFiles::open(path).unwrap_err().to_string()
}

/// A safetensors file with this header and so many bytes behind it.
fn write(path: &Path, size: u64, header: &[u8], data: usize) {
    let mut bytes = size.to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data, 0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn views_of_one_storage_are_read_as_pytorch_sees_them() {
    let files = TensorFiles::open(&fixture("views.pt")).unwrap();
    let expected = Tensor::read_safetensors(fixture("views.safetensors")).unwrap();
    assert!(expected.len() >= 8);
    let kinds: std::collections::BTreeSet<String> =
        expected.iter().map(|(_, tensor)| format!("{:?}", tensor.kind())).collect();
    assert!(kinds.len() >= 4, "{kinds:?}");
    for (name, expected) in expected {
        let found = files.read(&name).unwrap();
        assert_eq!((found.size(), found.kind()), (expected.size(), expected.kind()), "{name}");
        assert!(found.equal(&expected), "{name}");
    }
}

#[test]
fn old_checkpoints_are_read() {
    let files = TensorFiles::open(&fixture("legacy.pt")).unwrap();
    let name = files.names().next().unwrap().to_owned();
    assert!(files.read(&name).unwrap().numel() > 0);
}

#[test]
fn what_is_no_state_dict_is_refused_and_nothing_is_executed() {
    for (name, parts) in [
        ("not_a_zip.pt", vec!["not_a_zip.pt", "torch.save"]),
        ("objects.pt", vec!["objects.pt", "no tensors", "state dict"]),
    ] {
        let error = refused(&fixture(name));
        for part in parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    }
    // A pickle that would call os.system: its tensor may be read or not, but the call never happens.
    let _ = TensorFiles::open(&fixture("code.pt"));
    assert!(!Path::new("/tmp/pwned-by-pt").exists());
    let missing = refused(Path::new("nowhere.pt"));
    assert!(missing.contains("cannot open nowhere.pt"), "{missing}");
}

#[test]
fn lying_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let entry = |shape: &str, from: u64, to: u64| {
        format!("{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let two = |a: String, b: String| format!("{{\"a\":{a},\"b\":{b}}}");
    let cases = [
        ("offsets past the end", format!("{{\"a\":{}}}", entry("[4]", 0, 16)), 8),
        ("bytes that belong to nothing", format!("{{\"a\":{}}}", entry("[2]", 0, 8)), 16),
        ("overlapping", two(entry("[2]", 0, 8), entry("[2]", 4, 12)), 12),
        ("a gap", two(entry("[1]", 0, 4), entry("[1]", 8, 12)), 12),
        ("a shape of another size", format!("{{\"a\":{}}}", entry("[3]", 0, 8)), 8),
        (
            "a shape that overflows",
            format!("{{\"a\":{}}}", entry("[18446744073709551615,18446744073709551615]", 0, 8)),
            8,
        ),
        ("backwards", format!("{{\"a\":{}}}", entry("[2]", 8, 0)), 8),
        ("no JSON", "{\"a\":".to_owned(), 8),
    ];
    for (what, header, data) in cases {
        write(&path, header.len() as u64, header.as_bytes(), data);
        let error = refused(&path);
        assert!(error.contains("x.safetensors") && error.contains("damaged"), "{what}: {error}");
    }
    for size in [u64::MAX, u64::MAX - 7, 1 << 40, 100] {
        write(&path, size, b"{}", 0);
        assert!(refused(&path).contains("its header claims"), "{size}");
    }
    std::fs::write(&path, [1, 2, 3]).unwrap();
    assert!(refused(&path).contains("too short"));
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    Tensor::write_safetensors(&[("a", Tensor::ones([64], (Kind::Float, tch::Device::Cpu)))], &path)
        .unwrap();
    let files = TensorFiles::open(&path).unwrap();
    let error = files.read("b").unwrap_err().to_string();
    assert!(error.contains("no tensor `b`; it has a"), "{error}");
    std::fs::write(&path, b"short").unwrap();
    assert!(files.read("a").is_err());
}

/// A well-formed file to damage.
fn sound(pt: bool) -> Vec<u8> {
    if pt {
        return std::fs::read(fixture("views.pt")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let ones = |n: i64| Tensor::ones([n], (Kind::Float, tch::Device::Cpu));
    Tensor::write_safetensors(&[("a", ones(3)), ("b", ones(5))], &path).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens the bytes as a file and reads all it says it holds, which is never more than the file.
fn open_and_read(bytes: &[u8], name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    if let Ok(files) = TensorFiles::open(&path) {
        for tensor in files.names() {
            if let Ok(tensor) = files.read(tensor) {
                assert!(tensor.numel() <= bytes.len());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512), pt in any::<bool>()) {
        open_and_read(&bytes, if pt { "x.pt" } else { "x.safetensors" });
    }

    #[test]
    fn damaged_files_are_read_or_refused(
        pt in any::<bool>(),
        cut in 0.0..=1.0_f64,
        changes in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 0..8),
    ) {
        let mut bytes = sound(pt);
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        for (place, value) in changes {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        open_and_read(&bytes, if pt { "x.pt" } else { "x.safetensors" });
    }

    #[test]
    fn any_header_is_read_or_refused(
        shape in prop::collection::vec(any::<u64>(), 0..4),
        start in any::<u64>(),
        end in any::<u64>(),
        data in 0..64_usize,
    ) {
        let header = format!("{{\"a\":{{\"dtype\":\"F64\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}}}");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        open_and_read(&bytes, "x.safetensors");
    }
}
