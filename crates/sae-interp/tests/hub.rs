//! Publication on a hub on loopback that keeps what it is sent, and fails on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/loopback_hub.rs"]
mod loopback_hub;

use std::time::Duration;

use loopback_hub::server::raw_server;
use loopback_hub::{TOKEN, hub};
use sae_interp::http::ClientOptions;
use sae_interp::publish::hub::{Content, HubTarget, Published, Upload, publish};
use tempfile::TempDir;

fn target(url: &str) -> HubTarget {
    HubTarget {
        endpoint: format!("{url}/"),
        token: Some(TOKEN.to_owned()),
        repository: "me/saes".to_owned(),
        revision: "some/branch".to_owned(),
        is_private: true,
        requests: ClientOptions {
            first_pause: Duration::from_millis(1),
            retries: 2,
            ..ClientOptions::default()
        },
    }
}

fn uploads(place: &TempDir) -> Vec<Upload> {
    let large: Vec<u8> = (0..2500_u32).map(|i| (i % 251) as u8).collect();
    let file = place.path().join("weights");
    std::fs::write(&file, large).unwrap();
    let text = |path: &str, text: &str| Upload {
        path: path.to_owned(),
        content: Content::Text(text.to_owned()),
    };
    vec![
        Upload { path: "a/large.safetensors".to_owned(), content: Content::File(file) },
        text("a/small.safetensors", "weights"),
        text("README.md", "# A card"),
        text("empty.safetensors", ""),
        text("not.ignored", "x"),
    ]
}

fn send(url: &str, uploads: &[Upload]) -> Result<Published, String> {
    publish(&target(url), uploads, "Add", &|| false, &mut |_| {}).map_err(|error| error.to_string())
}

#[test]
fn files_arrive_as_one_commit_and_unchanged_ones_are_none() {
    let (url, kept) = hub();
    let place = TempDir::new().unwrap();
    let mut uploads = uploads(&place);
    // Whatever passes.
    kept.lock().unwrap().faults = vec![
        ("/api/repos/create", 503),
        ("preupload", 429),
        ("objects/batch", 500),
        ("/storage/", 502),
        ("verify", 504),
    ];
    let found = send(&url, &uploads).unwrap();
    let whole = Published {
        commit: Some(format!("{:040}", 1)),
        files: 4,
        sent: 2507,
        url: format!("{url}/me/saes"),
    };
    assert_eq!(found, whole);
    {
        let kept = kept.lock().unwrap();
        let paths: Vec<(&str, usize, bool)> = kept
            .files
            .iter()
            .map(|(path, (bytes, is_lfs))| (path.as_str(), bytes.len(), *is_lfs))
            .collect();
        let expected = [
            ("README.md", 8, false),
            ("a/large.safetensors", 2500, true),
            ("a/small.safetensors", 7, true),
            ("empty.safetensors", 0, false),
        ];
        assert_eq!(paths, expected);
        assert_eq!(kept.commits, ["Add"]);
    }
    let found = send(&url, &uploads).unwrap();
    assert_eq!((found.commit, found.sent), (None, 0));
    uploads[2].content = Content::Text("# Another card".to_owned());
    let found = send(&url, &uploads).unwrap();
    assert_eq!((found.files, found.sent, kept.lock().unwrap().commits.len()), (1, 0, 2));
}

#[test]
fn an_interrupted_publication_goes_on() {
    let (url, kept) = hub();
    let place = TempDir::new().unwrap();
    let uploads = uploads(&place);
    // The commit fails for good, after the large files have arrived; it is not sent again.
    kept.lock().unwrap().faults = vec![("/commit/", 500)];
    let error = send(&url, &uploads).unwrap_err();
    assert!(
        error.starts_with("cannot commit to me/saes: ") && error.contains("500 (1 attempts)"),
        "{error}"
    );
    assert!(kept.lock().unwrap().files.is_empty());
    let before = kept.lock().unwrap().lines.len();
    let found = send(&url, &uploads).unwrap();
    assert_eq!((found.files, found.sent), (4, 0));
    assert!(!kept.lock().unwrap().lines[before..].iter().any(|line| line.contains("/storage/")));
    // Where the connection breaks, it may have arrived.
    kept.lock().unwrap().faults = vec![("/commit/", 0)];
    let changed = Upload { content: Content::Text("# New".to_owned()), ..uploads[2].clone() };
    let error = send(&url, std::slice::from_ref(&changed)).unwrap_err();
    assert!(error.contains("(1 attempts)"), "{error}");
    // And one that a signal ends.
    let (url, kept) = hub();
    let ended = publish(
        &target(&url),
        &uploads,
        "Add",
        &|| kept.lock().unwrap().lines.iter().any(|line| line.contains("/storage/")),
        &mut |_| {},
    );
    assert!(ended.unwrap_err().to_string().starts_with("interrupted"));
}

#[test]
fn refusals_say_what_to_do_and_no_token() {
    let place = TempDir::new().unwrap();
    let uploads = uploads(&place);
    let (url, kept) = hub();
    kept.lock().unwrap().faults = vec![("preupload", 401)];
    let error = send(&url, &uploads).unwrap_err();
    assert!(
        error.contains("401") && error.contains("HF_TOKEN") && !error.contains(TOKEN),
        "{error}"
    );
    let none = HubTarget { token: None, ..target(&url) };
    let error = publish(&none, &uploads, "Add", &|| false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("set HF_TOKEN"));
    // An address that proves who asks is not shown; the token has nothing to do with it.
    let (url, kept) = hub();
    kept.lock().unwrap().faults = vec![("/storage/", 403)];
    let error = send(&url, &uploads).unwrap_err();
    assert!(
        error.contains("403") && !error.contains("signature") && !error.contains("HF_TOKEN"),
        "{error}"
    );
    kept.lock().unwrap().faults = vec![("preupload", 404)];
    let error = send(&url, &uploads).unwrap_err();
    assert!(error.contains("the repository or the branch is missing"), "{error}");
    // Somebody else's page.
    let page = raw_server(|_| (200, "", "<html>".to_owned()));
    let error = send(&page, &uploads).unwrap_err();
    assert!(error.contains("expected JSON") && error.contains("HF_ENDPOINT"), "{error}");
    let echo = raw_server(|request| (400, "", request.head.clone()));
    let error = send(&echo, &uploads).unwrap_err();
    assert!(error.contains("bearer (key)") && !error.contains(TOKEN), "{error}");
}
