//! Steps at a given shape, as the benchmark takes them: every type, both precisions, alone and as a bank; and whether a
//! device's fast paths compute what plain operations do.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use sae_train::bench::{Bench, Floor, Shape};
use tch::Device;

fn shape(kind: &str, precision: &str, members: usize) -> Shape {
    serde_json::from_value(serde_json::json!({
        "family": "gpt2", "layers": 3, "d_model": 32, "heads": 2, "vocab": 300, "context": 16, "batch": 2, "layer": 1,
        "expansion": 8, "type": kind, "warmup_steps": 1, "active": 12, "lr": 1e-4, "precision": precision,
        "members": members,
    }))
    .unwrap()
}

#[test]
fn a_shape_is_measured() {
    for kind in ["local", "e2e", "e2e+ds"] {
        for (precision, members) in [("f32", 1), ("f32", 3), ("bf16", 2)] {
            let shape = shape(kind, precision, members);
            let mut bench = Bench::new(&shape, Device::Cpu).unwrap();
            let found = bench.measure(3).unwrap();
            assert_eq!((found.seconds.len(), found.tokens_per_step), (3, 32));
            assert!(found.seconds.iter().all(|seconds| *seconds > 0.0));
            // About as many features are active as were asked for.
            assert!((6.0..24.0).contains(&found.l0), "{kind} {precision}: {}", found.l0);
            assert!(found.parts.contains_key("optimiser") && found.device_peak_bytes.is_none());
            let floor = Floor::measure(&shape, Device::Cpu).unwrap();
            assert!(floor.products > 0.0 && floor.adam > 0.0);
        }
    }
    let unknown = shape("other", "f32", 1);
    assert!(Bench::new(&unknown, Device::Cpu).unwrap_err().to_string().contains("e2e+ds"));
}

#[test]
fn fast_paths_agree_with_plain_operations() {
    let all = sae_train::agreement::measure(Device::Cpu).unwrap();
    assert_eq!(all.len(), 24 * 8 + 1 + 2 * 8 + 1);
    for found in all {
        assert!(found.is_good(), "{}: {} > {}", found.what, found.difference, found.bound);
    }
}
