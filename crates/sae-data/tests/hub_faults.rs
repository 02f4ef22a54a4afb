//! The hub's client against faults: downloads that break off, hubs that are silent, busy or lie.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/lfs.rs"]
mod lfs;
mod support;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sae_data::hub::{Hub, HubOptions};
use support::hub_server::{Reply, Request, Server, Shelf, answer, bytes_by_hash};
use support::{bytes, cache, hub, message, model, offline, options, serve, serve_file, starts};
use tempfile::TempDir;

fn impatient(server: &Server, cache: &TempDir) -> HubOptions {
    HubOptions { stall: Duration::from_millis(300), ..options(server, cache) }
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
    shelf.lfs = Some(lfs::on(&cdn));
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
    let expired = "HTTP 403 from the host that has the bytes";
    // What is wrong where the hub says how long the file is, and where it does not.
    let faults: [(AnswerFault, Option<[&str; 2]>); 5] = [
        (|_, reply| reply, None),
        // The address ran out before it was used.
        (|request, reply| if request.before == 0 { Reply::new(403) } else { reply }, None),
        (|_, _| Reply::new(403), Some([expired; 2])),
        (|_, _| Reply::new(200).body("12345"), Some(["a file of 10", "SHA-256"])),
        (|_, _| chunked("5\r\n12345"), Some(["5 of 10 bytes", "SHA-256"])),
    ];
    for (fault, causes) in faults {
        for says_size in [true, false] {
            let contents = b"1234567890".to_vec();
            let cdn =
                Server::start(move |r| fault(r, bytes_by_hash(std::slice::from_ref(&contents), r)));
            let mut shelf = Shelf::new("models", "a/b", &[("x", b"1234567890")]);
            shelf.lfs = Some(lfs::on(&cdn));
            let server = Server::start(move |request| {
                let reply = answer(std::slice::from_ref(&shelf), request);
                if says_size { reply } else { reply.without("X-Linked-Size") }
            });
            let cache = cache();
            let got = hub(&server, &cache).get(&model(), "x");
            match causes {
                None => assert_eq!(fs::read(got.unwrap()).unwrap(), b"1234567890"),
                Some([with, without]) => {
                    let cause = if says_size { with } else { without };
                    message(got, &["tried 3 times", cause]);
                }
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
