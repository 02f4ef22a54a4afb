//! The hub's client against a hub on loopback: what it asks for, what it leaves in the cache, and how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/hub_server.rs"]
mod hub_server;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hub_server::{Reply, Request, Server, Shelf, answer, bytes_by_hash, etag};
use sae_config::Source;
use sae_data::hub::{Hub, HubError, HubOptions, Missing, Repository, in_split};
use sae_data::prepare::WindowWriter;
use sae_data::{Batch, ColumnKind, Cursor, DataError, ShardSet, StreamOptions, TokenStream};
use tempfile::TempDir;

const TOKEN: &str = "hf_secret";

fn options(server: &Server, cache: &TempDir) -> HubOptions {
    let mut options = HubOptions::new(cache.path().join("hub"));
    options.endpoint.clone_from(&server.url);
    options.first_delay = Duration::from_millis(5);
    options.attempts = 3;
    options
}

fn impatient(server: &Server, cache: &TempDir) -> HubOptions {
    HubOptions { stall: Duration::from_millis(300), ..options(server, cache) }
}

fn hub(server: &Server, cache: &TempDir) -> Hub {
    Hub::new(options(server, cache)).unwrap()
}

fn offline(server: &Server, cache: &TempDir) -> Hub {
    Hub::new(HubOptions { offline: true, ..options(server, cache) }).unwrap()
}

fn cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A hub with these repositories.
fn serve(shelves: Vec<Shelf>) -> Server {
    Server::start(move |request| answer(&shelves, request))
}

/// A hub with the model `a/b`, whose one file `x` it answers for as the function says.
fn serve_file(
    bytes: &[u8],
    fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let shelves = vec![Shelf::new("models", "a/b", &[("x", bytes)])];
    Server::start(move |request| fault(request, answer(&shelves, request)))
}

/// Bytes that are different everywhere.
fn bytes(count: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(count)
        .collect()
}

fn model() -> Repository {
    Repository::model("a/b")
}

fn starts(server: &Server) -> Vec<Option<usize>> {
    let gets = server.requests().into_iter().filter(|request| request.method == "GET");
    gets.map(|request| request.start()).collect()
}

/// The message, after checking that it names all of these and not the token.
#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T, HubError>, parts: &[&str]) -> String {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains(TOKEN), "{message}");
    message
}

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
    (shelf.token, shelf.cdn) = (Some(TOKEN), Some(cdn.url.clone()));
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
fn a_cut_download_goes_on_where_it_was_cut() {
    let contents = bytes(300_000);
    let held = vec![contents.clone()];
    let cdn = Server::start(move |request| {
        let reply = bytes_by_hash(&held, request);
        if request.before < 2 { reply.cut(100_000) } else { reply }
    });
    let mut shelf = Shelf::new("models", "a/b", &[("x", &contents)]);
    shelf.cdn = Some(cdn.url.clone());
    let (server, cache) = (serve(vec![shelf]), cache());

    // Two attempts in one process, the third in another.
    let once = Hub::new(HubOptions { attempts: 2, ..options(&server, &cache) }).unwrap();
    let error = message(
        once.get(&model(), "x"),
        &["`x` of model a/b at revision main", "tried 2 times", "the same command goes on"],
    );
    assert!(error.contains(&cache.path().display().to_string()), "{error}");
    let path = hub(&server, &cache).get(&model(), "x").unwrap();
    assert!(fs::read(path).unwrap() == contents);
    assert_eq!(starts(&cdn), [None, Some(100_000), Some(200_000)]);
    let blobs = cache.path().join("hub/models--a--b/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 1, "no partial file is left");
}

#[test]
fn failures_are_counted_anew_after_progress() {
    let contents = bytes(5 << 20);
    let server = serve_file(&contents, |request, reply| {
        if request.method == "GET" && request.before < 3 { reply.cut(5 << 18) } else { reply }
    });
    let cache = cache();
    let hub = Hub::new(HubOptions { attempts: 2, ..options(&server, &cache) }).unwrap();
    assert!(fs::read(hub.get(&model(), "x").unwrap()).unwrap() == contents);
    assert_eq!(starts(&server), [None, Some(5 << 18), Some(10 << 18), Some(15 << 18)]);
}

#[test]
fn a_server_without_ranges_starts_from_the_beginning() {
    let contents = bytes(1000);
    let whole = contents.clone();
    let ignoring =
        serve_file(&contents, move |request, reply| match (&*request.method, request.before) {
            ("GET", 0) => reply.cut(400),
            ("GET", _) => Reply::new(200).body(&*whole),
            _ => reply,
        });
    // It says that the file has nothing after those 400 bytes.
    let denying =
        serve_file(&contents, |request, reply| match (&*request.method, request.before) {
            ("GET", 0) => reply.cut(400),
            ("GET", 1) => Reply::new(416),
            _ => reply,
        });
    for (server, asked) in
        [(ignoring, vec![None, Some(400)]), (denying, vec![None, Some(400), None])]
    {
        let cache = cache();
        assert!(fs::read(hub(&server, &cache).get(&model(), "x").unwrap()).unwrap() == contents);
        assert_eq!(starts(&server), asked);
    }
}

/// What a server makes of its answer.
type Fault = fn(Reply) -> Reply;

fn chunked(chunk: &str) -> Reply {
    Reply::new(200).header("Transfer-Encoding", "chunked").body(format!("{chunk}\r\n0\r\n\r\n"))
}

#[test]
fn what_is_not_the_file_announced_never_gets_into_the_cache() {
    let of_descriptions: [(Fault, &str); 7] = [
        (|reply| reply.header("Content-Length", u64::MAX.to_string()), "bytes"),
        (|reply| reply.header("Content-Length", "9".repeat(30)), "tried 3 times"),
        (|reply| reply.header("Content-Length", "-1"), "tried 3 times"),
        (|reply| reply.without("ETag"), "etag"),
        (|reply| reply.header("ETag", "\"../../../x\""), "etag"),
        (|reply| reply.without("X-Repo-Commit"), "x-repo-commit"),
        (|reply| reply.header("X-Repo-Commit", "../../x"), "x-repo-commit"),
    ];
    let of_bytes: [(Fault, &str); 7] = [
        (|reply| reply.body("12345"), "5 bytes were to come of a file of 10"),
        (|reply| reply.body("12345678901"), "11 bytes were to come of a file of 10"),
        (|reply| reply.header("Content-Length", u64::MAX.to_string()), "were to come"),
        (|_| chunked("5\r\n12345"), "5 of 10 bytes"),
        (|_| chunked("c\r\n1234567890ab"), "more came than"),
        (|_| chunked("fffffffffffffffffff\r\n1"), "tried 3 times"),
        (|_| Reply::new(206).header("Content-Range", "bytes 3-9/10").body("4567890"), "3-9"),
    ];
    for (method, faults) in [("HEAD", of_descriptions), ("GET", of_bytes)] {
        for (fault, part) in faults {
            let server = serve_file(b"1234567890", move |request, reply| {
                if request.method == method { fault(reply) } else { reply }
            });
            let cache = cache();
            message(hub(&server, &cache).get(&model(), "x"), &["`x` of model a/b", part]);
            assert!(!cache.path().join("hub/models--a--b/snapshots").exists(), "{part}");
            message(offline(&server, &cache).get(&model(), "x"), &["not in the cache"]);
        }
    }
}

type AnswerFault = fn(&Request, Reply) -> Reply;

#[test]
fn the_host_that_has_the_bytes_is_not_taken_at_its_word() {
    let faults: [(AnswerFault, &[&str]); 5] = [
        (|_, reply| reply, &[]),
        // The address ran out before it was used.
        (|request, reply| if request.before == 0 { Reply::new(403) } else { reply }, &[]),
        (|_, _| Reply::new(403), &["tried 3 times", "HTTP 403 from the host that has the bytes"]),
        (|_, _| Reply::new(200).body("12345"), &["tried 3 times", "a file of 10"]),
        (|_, _| chunked("5\r\n12345"), &["tried 3 times", "5 of 10 bytes"]),
    ];
    for (fault, parts) in faults {
        for says_size in [true, false] {
            let contents = b"1234567890".to_vec();
            let cdn =
                Server::start(move |r| fault(r, bytes_by_hash(std::slice::from_ref(&contents), r)));
            let mut shelf = Shelf::new("models", "a/b", &[("x", b"1234567890")]);
            shelf.cdn = Some(cdn.url.clone());
            let server = Server::start(move |request| {
                let reply = answer(std::slice::from_ref(&shelf), request);
                if says_size { reply } else { reply.without("X-Linked-Size") }
            });
            let cache = cache();
            let got = hub(&server, &cache).get(&model(), "x");
            match parts {
                [] => assert_eq!(fs::read(got.unwrap()).unwrap(), b"1234567890"),
                // Of a number that nobody said, five bytes are all.
                _ if got.is_ok() => assert!(!says_size),
                parts => drop(message(got, parts)),
            }
        }
    }
}

#[test]
fn redirects_that_lead_nowhere_are_errors() {
    for (location, part) in [
        (None, "redirect"),
        (Some("/a/b/resolve/main/x"), "more than 10 redirects"),
        (Some("ftp://127.0.0.1/x"), "redirect"),
        (Some("http://"), "redirect"),
        (Some("\u{fc}"), "redirect"),
    ] {
        let server = serve_file(b"x", move |_, _| {
            let reply = Reply::new(302).header("X-Repo-Commit", "c0").header("ETag", "e0");
            location.map_or(reply.clone(), |location| reply.header("Location", location))
        });
        message(
            hub(&server, &cache()).get(&model(), "x"),
            &["`x` of model a/b", part, "HF_ENDPOINT"],
        );
    }
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
        fs::write(blobs.join(etag(b"1234567890") + ".sae-part"), there).unwrap();
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

type Busy = Box<dyn Fn() -> Reply + Send + Sync>;

#[test]
fn the_wait_that_the_hub_asks_for_is_kept() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let cases: [(&str, Busy); 3] = [
        ("seconds", Box::new(|| Reply::new(429).header("Retry-After", "1"))),
        ("date", Box::new(move || Reply::new(503).header("Retry-After", http_date(now() + 2)))),
        ("rate limit", Box::new(|| Reply::new(429).header("RateLimit", r#""resolvers";r=0;t=1"#))),
    ];
    std::thread::scope(|scope| {
        for (name, busy) in cases {
            scope.spawn(move || {
                let server = serve_file(b"x", move |request, reply| {
                    if request.method == "HEAD" && request.before == 0 { busy() } else { reply }
                });
                let cache = cache();
                hub(&server, &cache).get(&model(), "x").unwrap();
                let requests = server.requests();
                assert_eq!(requests.len(), 3, "{name}");
                let waited = requests[1].at - requests[0].at;
                assert!(waited >= Duration::from_millis(950), "{name}: {waited:?}");
            });
        }
    });
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` of seconds since 1970.
fn http_date(seconds: u64) -> String {
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let (mut days, mut year) = (seconds / 86_400, 1970);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let names = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(' ');
    for (name, length) in names.zip(lengths) {
        if days < length {
            let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
            return format!(
                "Sun, {:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT",
                days + 1
            );
        }
        days -= length;
    }
    unreachable!()
}

#[test]
fn a_hub_that_recovers_is_asked_again() {
    let contents = bytes(1000);
    let server = serve_file(&contents, |request, reply| match (&*request.method, request.before) {
        ("HEAD", 0) => Reply::new(503),
        ("HEAD", 1) => Reply::new(200).header("Content-Length", "nonsense\r\n\r\n"),
        ("GET", 0) => reply.cut(500).silent(),
        _ => reply,
    });
    let cache = cache();
    let hub = Hub::new(HubOptions { attempts: 5, ..impatient(&server, &cache) }).unwrap();
    assert!(fs::read(hub.get(&model(), "x").unwrap()).unwrap() == contents);
    assert_eq!(starts(&server), [None, Some(500)]);
}

#[test]
fn a_hub_that_never_answers_is_an_error_after_a_while() {
    let (server, cache) = (Server::start(|_| Reply::silence()), cache());
    let waiting = Hub::new(impatient(&server, &cache)).unwrap();
    let parts = ["tried 3 times", "nothing came for 300ms", "the same command"];
    message(waiting.get(&model(), "x"), &parts);
    assert_eq!(server.requests().len(), 3);
    message(waiting.files(&model()), &parts);

    let failing = Server::start(|_| Reply::new(500).header("X-Error-Message", "on fire"));
    message(hub(&failing, &cache).files(&model()), &["tried 3 times", "HTTP 500, on fire"]);
    let nobody =
        HubOptions { endpoint: "http://127.0.0.1:1".to_owned(), ..options(&server, &cache) };
    message(Hub::new(nobody).unwrap().files(&model()), &["tried 3 times", "refused"]);
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
fn a_hostile_listing_is_refused() {
    let sha = r#""sha": "a1""#;
    let name = |name: &str| format!(r#"{{{sha}, "siblings": [{{"rfilename": "{name}"}}]}}"#);
    for (body, part) in [
        ("<html>".to_owned(), "JSON"),
        (String::new(), "JSON"),
        ("[".repeat(100_000), "JSON"),
        (format!("{{{sha}}}"), "JSON"),
        (format!(r#"{{{sha}, "siblings": null}}"#), "JSON"),
        (r#"{"sha": "../../x", "siblings": []}"#.to_owned(), "../../x"),
        (name("../x"), "../x"),
        (name("a/../../x"), "a/../../x"),
        (name("/etc/passwd"), "/etc/passwd"),
        (name("a//b"), "a//b"),
        (name(r"a\\..\\x"), "outside"),
        (name(r"a\u0000b"), "outside"),
        (name(""), "outside"),
    ] {
        let answer = body.clone();
        let server = Server::start(move |_| Reply::new(200).body(&*answer));
        let cache = cache();
        message(hub(&server, &cache).files(&model()), &["the list of files of model a/b", part]);
        assert!(fs::read_dir(cache.path()).unwrap().next().is_none(), "{body}");
    }
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
fn parquet_files_of_main_or_of_the_conversion() {
    let plain: [(&str, &[u8]); 4] = [
        ("README.md", b""),
        ("data/train-00000-of-00002.parquet", b""),
        ("data/train-00001-of-00002.parquet", b""),
        ("data/test-00000-of-00001.parquet", b""),
    ];
    let unnamed: [(&str, &[u8]); 2] = [("b.parquet", b""), ("a.parquet", b"")];
    let converted: [(&str, &[u8]); 2] =
        [("default/train/0000.parquet", b"p"), ("default/validation/0000.parquet", b"q")];
    let at_convert = |mut shelf: Shelf| {
        shelf.revision = "refs/convert/parquet";
        shelf.commit = "c3".repeat(20);
        shelf
    };
    let server = serve(vec![
        Shelf::new("datasets", "a/plain", &plain),
        at_convert(Shelf::new("datasets", "a/plain", &converted)),
        Shelf::new("datasets", "a/unnamed", &unnamed),
        Shelf::new("datasets", "a/json", &[("train.json", b"")]),
        at_convert(Shelf::new("datasets", "a/json", &converted)),
        Shelf::new("datasets", "a/none", &[("train.json", b"")]),
    ]);
    let cache = cache();
    let hub = hub(&server, &cache);
    let files = |name: &str, revision, split, pattern| {
        let (repository, files) = hub.parquet_files(name, revision, split, pattern)?;
        Ok::<_, HubError>((repository.revision, files.join(" ")))
    };
    let main = |files: &str| (None, files.to_owned());
    let converted = |files: &str| (Some("refs/convert/parquet".to_owned()), files.to_owned());
    let [train, test] = [
        "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ];
    let of = |split| files("a/plain", None, Some(split), None);
    message(files("a/plain", None, None, None), &["several splits: train, test", "data.split"]);
    assert_eq!(of("train").unwrap(), main(train));
    assert_eq!(of("test").unwrap(), main(test));
    message(of("dev"), &["data set a/plain", "split `dev`", "the splits train, test"]);
    assert_eq!(files("a/plain", None, None, Some("data/te*")).unwrap(), main(test));
    assert_eq!(files("a/plain", None, Some("train"), Some("*-00000-*")).unwrap().1, &train[..33]);
    message(files("a/plain", None, None, Some("x*")), &["matches `x*`", "data/test-00000"]);
    message(files("a/plain", None, None, Some("[")), &["pattern", "`[`"]);

    assert_eq!(files("a/unnamed", None, Some("train"), None).unwrap(), main("a.parquet b.parquet"));
    message(
        files("a/unnamed", None, Some("test"), None),
        &["split `test`", "a.parquet, b.parquet"],
    );

    let (validation, convert) = ("default/validation/0000.parquet", "refs/convert/parquet");
    assert_eq!(files("a/json", None, Some("validation"), None).unwrap(), converted(validation));
    assert_eq!(
        files("a/plain", Some(convert), Some("validation"), None).unwrap(),
        converted(validation)
    );
    message(files("a/json", Some("main"), None, None), &["no parquet file", "train.json"]);
    message(
        files("a/none", None, None, None),
        &["data set a/none", "no parquet file", "train.json"],
    );
    message(files("a/absent", None, None, None), &["no such repository"]);

    // A data set of several configurations is none until one is chosen.
    let sets: [(&str, &[u8]); 3] = [
        ("en/train-00000.parquet", b""),
        ("de/train-00000.parquet", b""),
        ("de/test-00000.parquet", b""),
    ];
    let several = serve(vec![Shelf::new("datasets", "a/two", &sets)]);
    let own_cache = tempfile::tempdir().unwrap();
    let two = Hub::new(options(&several, &own_cache)).unwrap();
    let train = two.parquet_files("a/two", None, Some("train"), None);
    message(train, &["several configurations: de, en", "hf://owner/name/<configuration>/"]);
    let train = two.parquet_files("a/two", None, Some("train"), Some("en/**/*.parquet"));
    assert_eq!(train.unwrap().1, ["en/train-00000.parquet"]);

    // Offline, what was listed is known, whether or not it is here.
    let elsewhere = tempfile::tempdir().unwrap();
    let nothing = Hub::new(HubOptions { offline: true, ..options(&server, &elsewhere) }).unwrap();
    message(nothing.parquet_files("a/json", None, Some("train"), None), &["not in the cache"]);
    let offline = offline(&server, &cache);
    let (repository, listed) = hub.parquet_files("a/json", None, Some("train"), None).unwrap();
    assert_eq!(offline.parquet_files("a/json", None, Some("train"), None).unwrap().1, listed);
    message(offline.get(&repository, &listed[0]), &["default/train/0000.parquet", "not in the"]);
    let path = hub.get(&repository, &listed[0]).unwrap();
    assert_eq!(offline.parquet_files("a/json", None, Some("train"), None).unwrap().1, listed);
    assert_eq!(offline.get(&repository, &listed[0]).unwrap(), path);
}

#[test]
fn splits_are_whole_words() {
    for path in [
        "train.parquet",
        "train-00000-of-00010.parquet",
        "data/train-00000-of-00010.parquet",
        "train/0000.parquet",
        "default/train/0000.parquet",
        "default/partial-train/0000.parquet",
        "my_train_file.parquet",
        "train1.parquet",
        "retrain/train.parquet",
    ] {
        assert!(in_split(path, "train"), "{path}");
        assert!(!in_split(path, "test"), "{path}");
    }
    for path in
        ["training.parquet", "retrain.parquet", "constraint/0.parquet", "data/0.parquet", ""]
    {
        assert!(!in_split(path, "train"), "{path}");
    }
    assert!(in_split("default/train_sft/0000.parquet", "train_sft"));
    assert!(!in_split("x.parquet", ""));
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

/// Windows `first..first + count` of eight ids, the first of which numbers them, as a parquet file.
fn shard(first: u32, count: u32) -> Vec<u8> {
    let folder = cache();
    let out = folder.path().join("out");
    let mut writer = WindowWriter::create(&out, 8, 4096).unwrap();
    for window in first..first + count {
        writer.push(&[window, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    }
    writer.finish().unwrap();
    fs::read(out.join("shard-00000.parquet")).unwrap()
}

fn numbers(stream: impl Iterator<Item = Result<Batch, DataError>>) -> Vec<i64> {
    stream.map(|batch| batch.unwrap().tokens[0]).collect()
}

#[test]
fn a_data_set_is_read_shard_by_shard_and_the_next_one_comes_meanwhile() {
    let shards: Vec<Vec<u8>> = (0..3).map(|index| shard(index * 100, 100)).collect();
    let names = ["data/train-0.parquet", "data/train-1.parquet", "data/train-2.parquet"];
    let files: Vec<(&'static str, &[u8])> =
        names.into_iter().zip(shards.iter().map(Vec::as_slice)).collect();
    let server = serve(vec![Shelf::new("datasets", "a/b", &files)]);
    let cache = cache();
    let Source::Hub(source) = "hf://a/b".parse().unwrap() else { panic!("a path") };
    let hub = hub(&server, &cache);
    let set = ShardSet::open_hub(&source, "input_ids", Some("train"), &hub).unwrap();
    assert_eq!((set.kind(), set.rows(), set.names().count()), (ColumnKind::Windows, None, 3));
    let fetched = |name: &str| server.requests().iter().any(|request| request.path.ends_with(name));
    assert!(fetched("train-0.parquet") && !fetched("train-1.parquet"));

    let options = StreamOptions { epochs: None, ..StreamOptions::in_order(8, 1000) };
    let mut stream = TokenStream::start(set.clone(), None, options.clone()).unwrap();
    assert_eq!(numbers(stream.by_ref().take(20)), (0..20).collect::<Vec<i64>>());
    // The reader waits in the first shard; the second is on its way, the third is not.
    let began = std::time::Instant::now();
    while !fetched("train-1.parquet") {
        assert!(began.elapsed() < Duration::from_secs(10), "the second shard was not fetched");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!fetched("train-2.parquet"));
    // It goes on, and goes on from a cursor in another process as well.
    let path = cache.path().join("cursor.parquet");
    stream.cursor().save(&options, &set, &path).unwrap();
    assert_eq!(numbers(stream.by_ref().take(280)), (20..300).collect::<Vec<i64>>());
    let cursor = Cursor::load(&path, &options, &set).unwrap();
    let again = TokenStream::resume(set, None, options, cursor).unwrap();
    assert_eq!(numbers(again.take(280)), (20..300).collect::<Vec<i64>>());
}

#[test]
fn a_shard_that_cannot_be_fetched_is_an_error_when_it_is_its_turn() {
    let first = shard(0, 50);
    let files: [(&str, &[u8]); 2] = [("train-0.parquet", &first), ("train-1.parquet", b"lost")];
    let shelves = vec![Shelf::new("datasets", "a/b", &files)];
    let server = Server::start(move |request| {
        if request.path.ends_with("train-1.parquet") {
            return Reply::new(503);
        }
        answer(&shelves, request)
    });
    let cache = cache();
    let Source::Hub(source) = "hf://a/b".parse().unwrap() else { panic!("a path") };
    let set = ShardSet::open_hub(&source, "input_ids", None, &hub(&server, &cache)).unwrap();
    let stream = TokenStream::start(set, None, StreamOptions::in_order(8, 1000)).unwrap();
    let (read, failed): (Vec<_>, Vec<_>) = stream.partition(Result::is_ok);
    // The shuffle buffer has the last one.
    assert_eq!(read.len(), 49);
    assert_eq!(failed.len(), 1);
    let error = failed.into_iter().next().unwrap().unwrap_err().to_string();
    for part in ["train-1.parquet", "tried 3 times", "the same command goes on"] {
        assert!(error.contains(part), "`{part}` is missing from: {error}");
    }
}

#[test]
fn without_a_network_the_last_listing_is_gone_on_with() {
    let files: [(&str, &[u8]); 2] = [("train-0.parquet", b"a"), ("train-1.parquet", b"b")];
    let shelves = vec![Shelf::new("datasets", "a/b", &files)];
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let server = Server::start(move |request| {
        if down.load(Ordering::SeqCst) { Reply::new(503) } else { answer(&shelves, request) }
    });
    let cache = cache();
    let hub = hub(&server, &cache);
    let list = || hub.parquet_files("a/b", None, Some("train"), None);
    let listed = list().unwrap().1;
    is_down.store(true, Ordering::SeqCst);
    assert_eq!(list().unwrap().1, listed);
    message(hub.files(&Repository::dataset("a/other")), &["a/other", "tried 3 times"]);
}
