//! The hub's client against a hub on loopback: what it asks for, what it leaves in the cache, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/lfs.rs"]
mod lfs;
mod support;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sae_data::hub::{Hub, HubError, HubOptions, Missing, Repository};
use support::hub_server::{Reply, Server, Shelf, answer, bytes_by_hash, etag};
use support::{
    TOKEN, bytes, cache, hub, message, model, offline, options, serve, serve_file, starts,
};

#[test]
fn a_file_is_downloaded_once_into_the_standard_layout() {
    let server = serve(vec![Shelf::new("models", "a/b", &[("sub/config.json", b"{}")])]);
    let (cache, commit) = (cache(), "a1".repeat(20));
    let path = hub(&server, &cache).get(&model(), "sub/config.json").unwrap();

    let folder = cache.path().join("hub/models--a--b");
    assert_eq!(path, folder.join("snapshots").join(&commit).join("sub/config.json"));
    assert_eq!(fs::read(&path).unwrap(), b"{}");
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), commit);
    assert_eq!(fs::read(folder.join("blobs").join(etag(b"{}"))).unwrap(), b"{}");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&path).unwrap(),
        Path::new("../../../blobs").join(etag(b"{}")),
        "the cache can be moved"
    );
    let other = hf_hub::Cache::new(cache.path().join("hub")).model("a/b".to_owned());
    assert_eq!(other.get("sub/config.json"), Some(path.clone()), "hf-hub finds it");

    let asked = server.log();
    assert_eq!(
        asked,
        [
            "HEAD /a/b/resolve/main/sub/config.json".to_owned(),
            format!("GET /a/b/resolve/{commit}/sub/config.json"),
        ]
    );
    let by_commit = model().at(commit);
    for repository in [model(), by_commit] {
        assert_eq!(hub(&server, &cache).get(&repository, "sub/config.json").unwrap(), path);
    }
    assert_eq!(server.log(), asked, "no request for what is cached");
    let url = server.url.clone();
    drop(server);
    let mut gone = HubOptions::new(cache.path().join("hub"));
    gone.endpoint = url;
    assert_eq!(Hub::new(gone).unwrap().get(&model(), "sub/config.json").unwrap(), path);
}

#[test]
fn names_are_encoded_in_addresses() {
    let mut shelf = Shelf::new("datasets", "a/b", &[("odd/a b#1?100%.parquet", b"x")]);
    shelf.revision = "refs/convert/parquet";
    let (server, cache) = (serve(vec![shelf]), cache());
    let repository = Repository::dataset("a/b").at("refs/convert/parquet");
    let path = hub(&server, &cache).get(&repository, "odd/a b#1?100%.parquet").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"x");
    assert_eq!(hub(&server, &cache).files(&repository).unwrap(), ["odd/a b#1?100%.parquet"]);
    let log = server.log();
    assert_eq!(
        [&log[0], &log[2]],
        [
            "HEAD /datasets/a/b/resolve/refs%2Fconvert%2Fparquet/odd/a%20b%231%3F100%25.parquet",
            "GET /api/datasets/a/b/revision/refs%2Fconvert%2Fparquet",
        ]
    );
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let contents = bytes(10_000);
    let held = vec![contents.clone()];
    let cdn = Server::start(move |request| bytes_by_hash(&held, request));
    let mut shelf = Shelf::new("models", "a/b", &[("model.safetensors", &contents)]);
    (shelf.token, shelf.lfs) = (Some(TOKEN), Some(lfs::on(&cdn)));
    let (server, cache) = (serve(vec![shelf]), cache());

    let hub =
        Hub::new(HubOptions { token: Some(TOKEN.into()), ..options(&server, &cache) }).unwrap();
    hub.files(&model()).unwrap();
    assert_eq!(fs::read(hub.get(&model(), "model.safetensors").unwrap()).unwrap(), contents);
    let sent = |server: &Server| -> Vec<_> {
        server.requests().into_iter().map(|mut r| r.headers.remove("authorization")).collect()
    };
    assert_eq!(sent(&server), vec![Some(format!("Bearer {TOKEN}")); 2]);
    assert_eq!(sent(&cdn), [None]);
    assert!(!format!("{hub:?} {:?}", options(&server, &cache)).contains(TOKEN));
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let mut shelf = Shelf::new("models", "new/name", &[("x", b"x")]);
    shelf.token = Some(TOKEN);
    let shelves = vec![shelf];
    let server = Server::start(move |request| match request.path.strip_prefix("/a/b/") {
        Some(rest) => Reply::new(307).header("Location", format!("/new/name/{rest}")),
        None => answer(&shelves, request),
    });
    let cache = cache();
    let hub =
        Hub::new(HubOptions { token: Some(TOKEN.into()), ..options(&server, &cache) }).unwrap();
    assert_eq!(fs::read(hub.get(&model(), "x").unwrap()).unwrap(), b"x");
}

#[test]
fn a_blob_of_the_wrong_length_is_fetched_again() {
    let (server, cache) = (serve_file(b"1234567890", |_, reply| reply), cache());
    let blobs = cache.path().join("hub/models--a--b/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(etag(b"1234567890")), "12345").unwrap();
    let path = hub(&server, &cache).get(&model(), "x").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"1234567890");
    // A link whose blob has gone.
    fs::remove_file(blobs.join(etag(b"1234567890"))).unwrap();
    assert_eq!(fs::read(hub(&server, &cache).get(&model(), "x").unwrap()).unwrap(), b"1234567890");
    assert_eq!(path, hub(&server, &cache).get(&model(), "x").unwrap());
}

#[test]
#[cfg(unix)]
fn a_link_to_nowhere_is_replaced() {
    let (server, cache) = (serve_file(b"x", |_, reply| reply), cache());
    let path = hub(&server, &cache).get(&model(), "x").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_eq!(hub(&server, &cache).get(&model(), "x").unwrap(), path);
    assert_eq!(fs::read(path).unwrap(), b"x");
}

#[test]
fn bytes_that_are_there_are_not_asked_for() {
    for (there, asked) in [
        ("", vec![None]),
        ("1234", vec![Some(4)]),
        ("1234567890", vec![]),
        // Not what the hub has; from the beginning then.
        ("12345678901", vec![None]),
    ] {
        let weak = format!("W/\"{}\"", etag(b"1234567890"));
        let server = serve_file(b"1234567890", move |_, reply| reply.header("ETag", &*weak));
        let cache = cache();
        let blobs = cache.path().join("hub/models--a--b/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let part = blobs.join(etag(b"1234567890") + ".sae-part");
        fs::write(&part, there).unwrap();
        // An earlier release's name does not say whose it is; an hour without change does.
        let file = File::options().append(true).open(&part).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(2)).unwrap();
        let path = hub(&server, &cache).get(&model(), "x").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"1234567890", "{there}");
        assert_eq!(starts(&server), asked, "{there}");
    }
}

#[test]
fn an_empty_file_is_a_file() {
    let (server, cache) = (serve_file(b"", |_, reply| reply), cache());
    assert_eq!(fs::read(hub(&server, &cache).get(&model(), "x").unwrap()).unwrap(), b"");
}

#[test]
fn threads_that_want_the_same_file_download_it_once() {
    let contents = bytes(200_000);
    let server = serve_file(&contents, |request, reply| {
        if request.method == "GET" {
            std::thread::sleep(Duration::from_millis(100));
        }
        reply
    });
    let cache = cache();
    let (hub, contents) = (hub(&server, &cache), &contents);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope
                .spawn(|| assert!(fs::read(hub.get(&model(), "x").unwrap()).unwrap() == *contents));
        }
    });
    assert_eq!(starts(&server), [None]);
}

#[test]
fn a_gated_repository_needs_the_right_token() {
    let mut shelf = Shelf::new("models", "a/b", &[("x", b"x")]);
    shelf.token = Some("hf_right");
    let (server, cache) = (serve(vec![shelf]), cache());
    let with = |token: Option<&str>| {
        let token = token.map(str::to_owned);
        Hub::new(HubOptions { token, ..options(&server, &cache) }).unwrap()
    };
    let parts = ["model a/b", "401", "restricted", "no token was sent: set HF_TOKEN"];
    message(with(None).get(&model(), "x"), &parts);
    message(with(None).files(&model()), &parts);
    message(
        with(Some(TOKEN)).get(&model(), "x"),
        &["the token sent (HF_TOKEN) is invalid", "/a/b"],
    );
    assert_eq!(server.requests().len(), 3, "asking again does not help");
    with(Some("hf_right")).get(&model(), "x").unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let (server, cache) = (serve(vec![Shelf::new("models", "a/b", &[("x", b"x")])]), cache());
    let hub = hub(&server, &cache);
    let missing = |result: Result<_, HubError>| match result {
        Err(HubError::NotFound { missing, .. }) => missing,
        other => panic!("{other:?}"),
    };
    let elsewhere = Repository::model("a/c");
    assert_eq!(missing(hub.get(&elsewhere, "x").map(|_| ())), Missing::Repository);
    assert_eq!(missing(hub.get(&model().at("v1"), "x").map(|_| ())), Missing::Revision);
    assert_eq!(missing(hub.get(&model(), "y").map(|_| ())), Missing::File);
    assert_eq!(missing(hub.try_get(&elsewhere, "x").map(|_| ())), Missing::Repository);
    message(
        hub.get(&model().at("v1"), "y"),
        &["`y` of model a/b at revision v1", "no such revision"],
    );
    message(hub.files(&elsewhere), &["the list of files of model a/c", "no such repository"]);
    assert_eq!(hub.try_get(&model(), "y").unwrap(), None);
    assert!(hub.try_get(&model(), "x").unwrap().is_some());
}

#[test]
fn a_server_that_does_not_say_what_is_missing_is_asked_for_its_list() {
    let server = serve_file(b"x", |_, reply| reply.without("X-Error-Code"));
    let cache = cache();
    assert_eq!(hub(&server, &cache).try_get(&model(), "y").unwrap(), None);
    message(hub(&server, &cache).try_get(&Repository::model("a/c"), "x"), &["404", "model a/c"]);
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let files: [(&str, &[u8]); 3] = [("x", b"x"), ("sub/y", b"y"), ("z", b"z")];
    let (server, cache) = (serve(vec![Shelf::new("models", "a/b", &files)]), cache());
    let cut_off = offline(&server, &cache);
    let parts =
        ["model a/b at revision main", "not in the cache", "HF_HUB_OFFLINE", "HF_HUB_CACHE"];
    message(cut_off.get(&model(), "x"), &parts);
    message(cut_off.files(&model()), &parts);
    message(cut_off.try_get(&model(), "x"), &parts);
    assert!(server.requests().is_empty());

    hub(&server, &cache).get(&model(), "x").unwrap();
    hub(&server, &cache).get(&model(), "sub/y").unwrap();
    let before = server.requests().len();
    for repository in [model(), model().at("a1".repeat(20))] {
        assert_eq!(fs::read(cut_off.get(&repository, "sub/y").unwrap()).unwrap(), b"y");
        assert_eq!(cut_off.files(&repository).unwrap(), ["sub/y", "x"]);
        assert_eq!(cut_off.try_get(&repository, "z").unwrap(), None);
        message(
            cut_off.get(&repository, "z"),
            &["`z` of model a/b", &cache.path().to_string_lossy()],
        );
    }
    message(cut_off.get(&model().at("v1"), "x"), &["at revision v1"]);
    assert_eq!(server.requests().len(), before);
}

#[test]
fn a_branch_stays_where_it_was_until_it_is_listed() {
    let old = Shelf::new("models", "a/b", &[("x", b"old"), ("y", b"old")]);
    let mut new = Shelf::new("models", "a/b", &[("x", b"new"), ("y", b"new"), ("z", b"new")]);
    new.commit = "b2".repeat(20);
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = has_moved.clone();
    let server = Server::start(move |request| {
        let by_commit = request.path.contains(&old.commit);
        let shelf = if moved.load(Ordering::SeqCst) && !by_commit { &new } else { &old };
        answer(std::slice::from_ref(shelf), request)
    });
    let cache = cache();
    let hub = hub(&server, &cache);
    let read = |file| fs::read_to_string(hub.get(&model(), file).unwrap()).unwrap();
    assert_eq!(read("x"), "old");
    has_moved.store(true, Ordering::SeqCst);
    assert_eq!([read("x"), read("y")], ["old", "old"], "files of one commit");
    assert_eq!(hub.files(&model()).unwrap(), ["x", "y", "z"]);
    assert_eq!([read("x"), read("y"), read("z")], ["new", "new", "new"]);
}

#[test]
fn a_file_that_came_later_is_found() {
    let old = Shelf::new("models", "a/b", &[("x", b"old")]);
    let mut new = Shelf::new("models", "a/b", &[("x", b"new"), ("y", b"new")]);
    new.commit = "b2".repeat(20);
    let cache = cache();
    hub(&serve(vec![old]), &cache).get(&model(), "x").unwrap();
    // The old commit is no longer there.
    let server = serve(vec![new]);
    assert_eq!(fs::read(hub(&server, &cache).get(&model(), "y").unwrap()).unwrap(), b"new");
}

#[test]
fn names_that_would_leave_the_cache_are_not_asked_for() {
    let (server, cache) = (serve(Vec::new()), cache());
    let hub = hub(&server, &cache);
    for name in ["", "a/b/c", "../b", "a/..", "/a", "a/", "a b", "a--b", "a?b", "a/b#c", "\u{e4}/b"]
    {
        message(hub.get(&Repository::model(name), "x"), &["the repository's name", "owner/name"]);
    }
    for revision in ["", "..", "a/../b", "/a", "a b", "a%2Fb", "a?b"] {
        message(hub.files(&model().at(revision)), &["the revision"]);
    }
    for file in ["", "/x", "../x", "a/../../x", "a/./x", r"a\x"] {
        message(hub.get(&model(), file), &["the file's name"]);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn settings_come_from_the_variables_of_the_hub() {
    let home = cache();
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    let home = home.path().to_str().unwrap();
    let from = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.to_string(), OsString::from(v))).collect();
        HubOptions::from_variables(move |name| {
            pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
    };
    let plain = from(&[("HOME", "/home/me")]).unwrap();
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, Path::new("/home/me/.cache/huggingface/hub"));
    assert_eq!((plain.token, plain.offline), (None, false));
    let cache = |pairs: &[(&str, &str)]| from(pairs).unwrap().cache;
    let xdg = ("XDG_CACHE_HOME", "/xdg");
    assert_eq!(cache(&[("HOME", "/home/me"), xdg]), Path::new("/xdg/huggingface/hub"));
    assert_eq!(cache(&[("HF_HOME", "/hf"), xdg]), Path::new("/hf/hub"));
    assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]), Path::new("/hub"));
    let token = |pairs: &[(&str, &str)]| from(pairs).unwrap().token;
    let (file, old) = (("HF_HOME", home), ("HUGGING_FACE_HUB_TOKEN", "hf_old"));
    assert_eq!(token(&[file]).as_deref(), Some("hf_file"));
    assert_eq!(token(&[file, ("HF_TOKEN", "")]).as_deref(), Some("hf_file"));
    assert_eq!(token(&[file, old]).as_deref(), Some("hf_old"));
    assert_eq!(token(&[file, old, ("HF_TOKEN", " hf_new\n")]).as_deref(), Some("hf_new"));
    for (value, is_offline) in
        [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)]
    {
        assert_eq!(
            from(&[file, ("HF_HUB_OFFLINE", value)]).unwrap().offline,
            is_offline,
            "{value}"
        );
    }
    let mirror = from(&[file, ("HF_ENDPOINT", "https://mirror/")]).unwrap();
    assert_eq!(mirror.endpoint, "https://mirror/");
    Hub::new(mirror).unwrap();
    message(from(&[]), &["HF_HOME"]);
    for endpoint in ["", "huggingface.co", "ftp://x", "https://", "https://x?y", "https://x y"] {
        let options = HubOptions { endpoint: endpoint.into(), ..HubOptions::new(home) };
        message(Hub::new(options), &["HF_ENDPOINT", endpoint]);
    }
    let options = HubOptions { token: Some(format!("{TOKEN}\n")), ..HubOptions::new(home) };
    message(Hub::new(options), &["HF_TOKEN"]);
}
