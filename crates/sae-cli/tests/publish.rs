//! Publication of runs on a hub, and of features on Neuronpedia, driven as a user does; servers on loopback stand for both.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "../../sae-interp/tests/support/loopback_hub.rs"]
mod loopback_hub;
#[path = "support/small_run.rs"]
mod small_run;
mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use loopback_hub::server::{Reply, raw_server};
use loopback_hub::{TOKEN, hub};
use serde_json::Value;
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, sae_with, says, stderr, succeeds, windows};
use tempfile::TempDir;

const SITE: &str = "blocks.1.hook_resid_pre";

fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 240, 11)] {
        windows(&place.path().join(name), n, step, 64);
    }
    // More features than a batch has.
    let toml = small_run("kl", 0, OF_WINDOWS).replace("expansion = 2", "expansion = 4");
    std::fs::write(place.path().join("run.toml"), toml).unwrap();
    succeeds(&sae(&["train", "run.toml", "--out", "runs/run"], place.path()));
    place
}

#[test]
fn runs_go_to_the_hub_with_a_card() {
    let place = place();
    let at = place.path();
    let (url, kept) = hub();
    let listed = succeeds(&sae(&["publish", "hf://me/saes", "runs/run", "--dry-run"], at));
    let weights = format!("{SITE}/sae_weights.safetensors");
    says(&listed, &[&weights, "config.toml", "README.md", " bytes in 6 files"]);
    let send = |more: &[&str], token: &str| {
        let all = [&["publish", "hf://me/saes", "runs/run"], more].concat();
        let environment =
            [("HF_ENDPOINT", url.as_str()), ("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", token)];
        sae_with(&all, at, &environment)
    };
    let published = send(&["--license", "mit"], TOKEN);
    assert_eq!(succeeds(&published).trim(), format!("{url}/me/saes"));
    says(&stderr(&published), &["6 files in commit 0000", "bytes of large files sent"]);
    let kept = kept.lock().unwrap();
    let text = |path: &str| String::from_utf8(kept.files[path].0.clone()).unwrap();
    let here = std::fs::read(at.join("runs/run/sae").join(&weights)).unwrap();
    assert_eq!(kept.files[&weights], (here, true));
    let card = text("README.md");
    says(&card, &["---\nlibrary_name: saelens\n", "license: mit\n", "| e2e |"]);
    says(&card, &[&format!("SAE.from_pretrained(release=\"me/saes\", sae_id=\"{SITE}\")")]);
    // Nothing of this machine.
    let (root, config) = (at.to_string_lossy(), text("config.toml"));
    says(&config, &["train = \"train\""]);
    assert!(!config.contains(&*root) && !card.contains(&*root), "{config}");
    drop(kept);
    says(&stderr(&send(&["--license", "mit"], TOKEN)), &["everything is there already"]);
    fails(&send(&[], ""), &["no token: set HF_TOKEN"]);
    let wrong = sae(&["publish", "elsewhere", "runs/run"], at);
    fails(&wrong, &["expected where to publish, neuronpedia or hf://owner/name"]);
}

#[test]
fn what_tells_runs_of_other_places_apart_is_not_published() {
    let place = place();
    let at = place.path();
    windows(&at.join("other"), 200, 5, 64);
    let toml = std::fs::read_to_string(at.join("run.toml")).unwrap();
    std::fs::write(at.join("other.toml"), toml.replace("\"train\"", "\"other\"")).unwrap();
    succeeds(&sae(&["train", "other.toml", "--out", "runs/other"], at));
    let (url, kept) = hub();
    let environment = [("HF_ENDPOINT", url.as_str()), ("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", TOKEN)];
    succeeds(&sae_with(&["publish", "hf://me/saes", "runs"], at, &environment));
    let kept = kept.lock().unwrap();
    let root = at.to_string_lossy();
    let texts = kept.files.iter().filter(|(path, _)| !path.ends_with(".safetensors"));
    for (path, (bytes, _)) in texts {
        assert!(!String::from_utf8_lossy(bytes).contains(&*root), "{path}");
    }
    assert!(
        kept.files.contains_key("run/config.toml") && kept.files.contains_key("other/config.toml")
    );
    let frontier: Value = serde_json::from_slice(&kept.files["frontier.json"].0).unwrap();
    assert_eq!(frontier["points"].as_array().unwrap().len(), 2);
}

type Bodies = Arc<Mutex<Vec<(String, Value)>>>;

/// What Neuronpedia checks (`feature/upload-batch/route.ts`).
fn check_batch(body: &Value) {
    assert_eq!(body["modelId"], "tiny");
    assert!(body["source"].as_str().unwrap().starts_with("1-res-e2e"));
    let features = body["features"].as_array().unwrap();
    assert!((1..=128).contains(&features.len()));
    for feature in features {
        assert!(feature["index"].is_u64());
        assert!((0.0..=1.0).contains(&feature["density"].as_f64().unwrap()));
        for logits in ["topLogits", "bottomLogits"] {
            let logits = feature[logits].as_array().unwrap();
            assert!(logits.len() <= 20);
            assert!(logits.iter().all(|own| !own["token"].as_str().unwrap().is_empty()));
        }
        assert!(feature["explanations"].is_array());
        let activations = feature["activations"].as_array().unwrap();
        assert!(!activations.is_empty());
        for activation in activations {
            let tokens = activation["tokens"].as_array().unwrap();
            assert!((1..=1024).contains(&tokens.len()));
            assert!(tokens.iter().all(|token| !token.as_str().unwrap().is_empty()));
            let values = activation["values"].as_array().unwrap();
            assert_eq!(values.len(), tokens.len());
            let thousandths = |value: &Value| value.as_f64().unwrap() * 1e3;
            assert!(
                values.iter().all(|own| (thousandths(own) - thousandths(own).round()).abs() < 1e-6)
            );
            if let Some(share) = activation["quantileFraction"].as_f64() {
                assert!((0.0..=1.0).contains(&share));
                assert!(activation["quantileMin"].as_f64() < activation["quantileMax"].as_f64());
            }
        }
    }
}

/// Neuronpedia, which has the model already and fails at its second batch once.
fn neuronpedia() -> (String, Bodies) {
    let seen = Bodies::default();
    let own = Arc::clone(&seen);
    let url = raw_server(move |request| -> Reply {
        assert!(request.head.contains("x-api-key: np-secret"), "{}", request.head);
        let path = request.head.split(' ').nth(1).unwrap().to_owned();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let mut seen = own.lock().unwrap();
        seen.push((path.clone(), body.clone()));
        let batches = seen.iter().filter(|(path, _)| path.ends_with("upload-batch")).count();
        match path.as_str() {
            "/api/model/new" => {
                assert_eq!((&body["id"], body["layers"].is_u64()), (&Value::from("tiny"), true));
                (400, "", r#"{"error":"Model already exists"}"#.to_owned())
            }
            "/api/source-set/new" => (200, "", "{}".to_owned()),
            "/api/feature/upload-batch" if batches == 2 => {
                (500, "", r#"{"error":"np-secret already exists"}"#.to_owned())
            }
            // It may have arrived.
            "/api/feature/upload-batch" if batches == 4 => (0, "", String::new()),
            "/api/feature/upload-batch" => {
                check_batch(&body);
                (200, "", r#"{"message":"features created."}"#.to_owned())
            }
            other => (404, "", other.to_owned()),
        }
    });
    (format!("{url}/api"), seen)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn features_go_to_neuronpedia_once_each() {
    let place = place();
    let at = place.path();
    let (url, seen) = neuronpedia();
    let to = ["publish", "neuronpedia", "runs/run", "--model-id", "tiny"];
    let send = |more: &[&str]| {
        let set: &[&str] =
            if more.contains(&"--set-name") { &[] } else { &["--set-name", "res-e2e"] };
        let all = [&to[..], set, &["--address", &url], more].concat();
        sae_with(&all, at, &[("NEURONPEDIA_API_KEY", "np-secret")])
    };
    fails(&send(&[]), &["has no dashboard: `sae features runs/run` makes it"]);
    succeeds(&sae(&["features", "runs/run"], at));
    // A key is for its place alone.
    fails(&send(&[]), &["is not Neuronpedia's own address: --key-from"]);
    let key = ["--key-from", "NEURONPEDIA_API_KEY"];
    let failed = send(&key);
    fails(&failed, &["cannot send", "500 (1 attempts)"]);
    assert!(!stderr(&failed).contains("np-secret"), "{}", stderr(&failed));
    succeeds(&send(&key));
    let paths = |seen: &Bodies| -> Vec<String> {
        seen.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    };
    let sent: Vec<u64> = {
        let seen = seen.lock().unwrap();
        let batches = seen.iter().filter(|(path, _)| path.ends_with("upload-batch"));
        // The second failed.
        let arrived = batches.enumerate().filter(|(number, _)| *number != 1);
        let features =
            arrived.flat_map(|(_, (_, body))| body["features"].as_array().unwrap().clone());
        features.map(|feature| feature["index"].as_u64().unwrap()).collect()
    };
    let mut once = sent.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), sent.len(), "none twice");
    assert!(sent.len() > 64, "{}", sent.len());
    let before = paths(&seen).len();
    says(&stderr(&send(&key)), &["0 features sent now"]);
    assert_eq!(paths(&seen).len(), before);
    // To another set; the connection breaks, and what may have arrived is not sent again unasked.
    let other = |more: &[&str]| send(&[&key[..], &["--set-name", "res-e2e-2"], more].concat());
    fails(&other(&[]), &["cannot send 64 features to 1-res-e2e-2", "(1 attempts)"]);
    fails(
        &other(&[]),
        &["of 64 features nobody knows whether they have arrived", "--uncertain skip"],
    );
    let before = paths(&seen).len();
    succeeds(&other(&["--uncertain", "skip"]));
    let last = seen.lock().unwrap().last().unwrap().1.clone();
    let skipped: Vec<u64> = sent.iter().copied().take(64).collect();
    let indices =
        last["features"].as_array().unwrap().iter().map(|own| own["index"].as_u64().unwrap());
    assert!(
        indices.clone().count() > 0 && indices.into_iter().all(|index| !skipped.contains(&index))
    );
    assert!(paths(&seen).len() > before);
    // The first set is known still; a dashboard that was made anew is not sent beside the old one.
    says(&stderr(&send(&key)), &["0 features sent now"]);
    succeeds(&sae(&["features", "runs/run", "--tokens", "320"], at));
    fails(&send(&key), &["were sent to 1-res-e2e of tiny from another dashboard", "--set-name"]);
    succeeds(&sae(&["features", "runs/run", "--tokens", "3840"], at));
    let before = paths(&seen).len();
    check_files(at, &send, &sent);
    assert_eq!(paths(&seen).len(), before);
}

/// The same as files, and as SAEDashboard's.
fn check_files(at: &Path, send: &dyn Fn(&[&str]) -> std::process::Output, sent: &[u64]) {
    succeeds(&send(&["--out", "upload"]));
    let requests = read(&at.join("upload/neuronpedia/batch-0.json"));
    check_batch(&requests);
    let written = read(&at.join("upload/saedashboard/batch-0.json"));
    assert_eq!(
        (&written["model_id"], &written["layer"], &written["sae_set"]),
        (&Value::from("tiny"), &Value::from(1), &Value::from("res-e2e"))
    );
    let (own, theirs) = (&requests["features"][0], &written["features"][0]);
    assert_eq!(own["index"], theirs["feature_index"]);
    assert_eq!(own["activations"][0]["values"], theirs["activations"][0]["values"]);
    assert_eq!(theirs["activations"][0]["bin_contains"], -1.0);
    // Nothing of this machine.
    let root = at.to_string_lossy();
    for file in
        ["neuronpedia/batch-0.json", "saedashboard/batch-0.json", "saedashboard/run_settings.json"]
    {
        let text = std::fs::read_to_string(at.join("upload").join(file)).unwrap();
        assert!(!text.contains(&*root), "{file}");
    }
    assert_eq!(theirs["dataset"], "validation");
    // The shares of the intervals are parts of the density.
    let mut all = 0.0;
    for feature in written["features"].as_array().unwrap() {
        let mut shares = std::collections::BTreeMap::new();
        for activation in feature["activations"].as_array().unwrap() {
            let share = activation["bin_contains"].as_f64().unwrap();
            if share >= 0.0 {
                shares.insert(activation["bin_min"].to_string(), share);
            }
        }
        let together: f64 = shares.values().sum();
        assert!(together <= feature["frac_nonzero"].as_f64().unwrap() + 1e-9);
        all += together;
    }
    assert!(all > 0.0);
    // In any order, and once.
    let feature = |place: usize| sent[place].to_string();
    let some = ["--feature", &feature(9), "--feature", &feature(2), "--feature", &feature(9)];
    succeeds(&send(&[&["--out", "some"], &some[..]].concat()));
    assert_eq!(
        read(&at.join("some/neuronpedia/batch-0.json"))["features"].as_array().unwrap().len(),
        2
    );
    let skipped = read(&at.join("upload/saedashboard/skipped_indexes.json"));
    let skipped = skipped["skipped_indexes"].as_array().unwrap();
    assert!(skipped.iter().all(|own| !sent.contains(&own.as_u64().unwrap())));
    assert_eq!(read(&at.join("upload/saedashboard/run_settings.json"))["n_tokens_in_prompt"], 16);
    let wrong = sae(
        &["publish", "neuronpedia", "runs/run", "--model-id", "tiny", "--set-name", "res_e2e"],
        at,
    );
    fails(&wrong, &["\"res_e2e\" is no name of a source set there"]);
}
