//! The hub's cache where several processes share it and where its contents go bad: what is written never is half there,
//! and what is damaged is not served.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/lfs.rs"]
mod lfs;
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lfs::sha256;
use sae_data::hub::{Hub, HubError, HubOptions};
use support::hub_server::{Reply, Request, Server, Shelf, answer, etag};
use support::{bytes, cache, hub, message, model, offline, options, serve, serve_file, starts};
use tempfile::TempDir;

/// A hub with the model `a/b`, whose one file `x` is kept in LFS.
fn serve_lfs(
    contents: &[u8],
    fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let etag = format!("\"{}\"", sha256(contents));
    serve_file(contents, move |request, reply| {
        fault(request, reply).header("X-Linked-Etag", etag.clone())
    })
}

fn folder(cache: &TempDir, name: &str) -> PathBuf {
    let folder = cache.path().join("hub/models--a--b").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Flips a bit of a file and leaves its time of change as if this had happened then.
fn flip(path: &Path, at: SystemTime) {
    fs::write(path, flipped(&fs::read(path).unwrap())).unwrap();
    File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
}

fn flipped(contents: &[u8]) -> Vec<u8> {
    let mut contents = contents.to_vec();
    contents[3] ^= 1;
    contents
}

#[test]
fn a_part_that_another_process_is_writing_is_left_alone() {
    let contents = b"1234567890";
    let cache = cache();
    let blobs = folder(&cache, "blobs");
    // Of an earlier release, of another machine, of a process that could not lock.
    let parts = ["", ".0123456789abcdef-1-a", ".unlocked-1-b"];
    let parts = parts.map(|writer| blobs.join(format!("{}{writer}.sae-part", etag(contents))));
    for part in &parts {
        append(part, b"12");
    }
    let foreign = parts.clone();
    let server = serve_file(contents, move |request, reply| {
        if request.method == "GET" {
            for part in &foreign {
                append(part, b"34");
            }
        }
        reply
    });
    let path = hub(&server, &cache).get(&model(), "x").unwrap();
    assert_eq!(fs::read(path).unwrap(), contents);
    assert_eq!(starts(&server), [None]);
    for part in &parts {
        assert_eq!(fs::read(part).unwrap(), b"1234", "{part:?}");
    }
    assert_eq!(names(&blobs).len(), 1 + parts.len(), "its own part has become the blob");
}

#[test]
fn lists_and_branches_are_replaced_and_never_rewritten() {
    let (server, cache) = (serve(vec![Shelf::new("models", "a/b", &[("x", b"x")])]), cache());
    let commit = "a1".repeat(20);
    let places =
        [folder(&cache, "refs").join("main"), folder(&cache, "sae-listings").join(&commit)];
    // Somebody who reads the file while it is written sees what a second link to it shows.
    let seen = [cache.path().join("branch"), cache.path().join("list")];
    for (place, seen) in places.iter().zip(&seen) {
        fs::write(place, "before").unwrap();
        fs::hard_link(place, seen).unwrap();
    }
    hub(&server, &cache).files(&model()).unwrap();
    assert_eq!(places.each_ref().map(|place| fs::read_to_string(place).unwrap()), [&*commit, "x"]);
    assert_eq!(seen.each_ref().map(|seen| fs::read_to_string(seen).unwrap()), ["before"; 2]);

    #[cfg(unix)]
    {
        for (place, seen) in places.iter().zip(&seen) {
            fs::remove_file(place).unwrap();
            std::os::unix::fs::symlink(seen, place).unwrap();
        }
        hub(&server, &cache).files(&model()).unwrap();
        assert_eq!(seen.each_ref().map(|seen| fs::read_to_string(seen).unwrap()), ["before"; 2]);
    }
    assert_eq!(names(&folder(&cache, "refs")), ["main"], "nothing is left beside it");
    assert_eq!(names(&folder(&cache, "sae-listings")), [commit]);
}

#[test]
fn a_download_that_is_not_what_its_name_says_is_made_again() {
    let contents = bytes(1000);
    let wrong = flipped(&contents);
    let bad = wrong.clone();
    let server = serve_lfs(&contents, move |request, reply| {
        if request.method == "GET" && request.before == 0 { reply.body(&*bad) } else { reply }
    });
    let cache = cache();
    let path = hub(&server, &cache).get(&model(), "x").unwrap();
    assert!(fs::read(path).unwrap() == contents);
    assert_eq!(starts(&server), [None, None]);
    assert_eq!(names(&folder(&cache, "blobs")), [sha256(&contents)]);
}

#[test]
fn contents_that_stay_wrong_never_get_into_the_cache() {
    let contents = bytes(3 << 20);
    let wrong = flipped(&contents);
    let (expected, found) = (sha256(&contents), sha256(&wrong));
    for breaks_off in [false, true] {
        let bad = wrong.clone();
        // Half of it each time it is asked for from the beginning: failures are counted anew, mismatches are not.
        let server = serve_lfs(&contents, move |request, reply| match &*request.method {
            "GET" if breaks_off && request.start().is_none() => reply.body(&*bad).cut(2 << 20),
            "GET" if !breaks_off => reply.body(&*bad),
            _ => reply,
        });
        let cache = cache();
        message(
            hub(&server, &cache).get(&model(), "x"),
            &["`x` of model a/b", "tried", "SHA-256", &found, &expected],
        );
        assert_eq!(starts(&server).iter().filter(|start| start.is_none()).count(), 3);
        assert!(names(&folder(&cache, "blobs")).is_empty());
        assert!(!cache.path().join("hub/models--a--b/snapshots").exists());
    }
}

#[test]
fn a_damaged_blob_is_fetched_again_or_named() {
    let contents = bytes(1000);
    let (server, cache) = (serve_lfs(&contents, |_, reply| reply), cache());
    let (online, offline) = (hub(&server, &cache), offline(&server, &cache));
    let blob = folder(&cache, "blobs").join(sha256(&contents));
    let path = online.get(&model(), "x").unwrap();
    assert_eq!(offline.get(&model(), "x").unwrap(), path);

    let is_damaged = |result| matches!(result, Err(HubError::Damaged { .. }));
    // As another client of the cache leaves it, and as one of this kind does.
    for is_verified in [false, true] {
        if !is_verified {
            fs::remove_dir_all(folder(&cache, "sae-verified")).unwrap();
        }
        flip(&blob, SystemTime::UNIX_EPOCH);
        let parts = [
            "`x` of model a/b at revision main is damaged",
            &*blob.canonicalize().unwrap().to_string_lossy(),
            &*sha256(&flipped(&contents)),
            "HF_HUB_OFFLINE",
            "delete",
        ]
        .map(str::to_owned);
        message(offline.get(&model(), "x"), &parts.each_ref().map(|part| &**part));
        assert!(is_damaged(offline.try_get(&model(), "x").map(|_| ())));
        let asked = starts(&server).len();
        assert_eq!(online.get(&model(), "x").unwrap(), path);
        assert!(fs::read(&path).unwrap() == contents);
        assert_eq!(starts(&server).len(), asked + 1);
    }
    // Too short.
    fs::write(&blob, &contents[..500]).unwrap();
    assert!(is_damaged(offline.get(&model(), "x").map(|_| ())));
    assert!(fs::read(online.get(&model(), "x").unwrap()).unwrap() == contents);
    assert_eq!(offline.get(&model(), "x").unwrap(), path);
}

#[test]
fn a_blob_that_has_not_changed_is_hashed_once() {
    let contents = bytes(1000);
    let (server, cache) = (serve_lfs(&contents, |_, reply| reply), cache());
    let offline = offline(&server, &cache);
    hub(&server, &cache).get(&model(), "x").unwrap();
    let blob = folder(&cache, "blobs").join(sha256(&contents));
    let time = fs::metadata(&blob).unwrap().modified().unwrap();
    // Not seen, because neither its length nor its time shows it: nobody has read the contents.
    flip(&blob, time);
    offline.get(&model(), "x").unwrap();
    fs::remove_dir_all(folder(&cache, "sae-verified")).unwrap();
    message(offline.get(&model(), "x"), &["damaged"]);

    // Where nothing can be remembered, it is hashed each time.
    flip(&blob, time);
    fs::remove_dir_all(folder(&cache, "sae-verified")).unwrap();
    fs::write(cache.path().join("hub/models--a--b/sae-verified"), "no folder").unwrap();
    offline.get(&model(), "x").unwrap();
    flip(&blob, time);
    message(offline.get(&model(), "x"), &["damaged"]);
}

#[test]
fn a_damaged_blob_does_not_outlast_a_hub_that_names_it_otherwise() {
    let contents = bytes(1000);
    let cache = cache();
    let path = hub(&serve_lfs(&contents, |_, reply| reply), &cache).get(&model(), "x").unwrap();
    flip(&folder(&cache, "blobs").join(sha256(&contents)), SystemTime::UNIX_EPOCH);
    let server = serve_file(&contents, |_, reply| reply);
    for _ in 0..2 {
        assert_eq!(hub(&server, &cache).get(&model(), "x").unwrap(), path);
        assert!(fs::read(&path).unwrap() == contents);
    }
    assert_eq!(starts(&server), [None]);
}

#[test]
fn hubs_that_start_together_leave_one_whole_blob() {
    let contents = bytes(300_000);
    let shelf = Shelf::new("models", "a/b", &[("x", &contents)]);
    let name = sha256(&contents);
    let etag = name.clone();
    // Every connection breaks off once, so that each hub lets go of the lock in between.
    let server = Server::start(move |request| {
        let reply = answer(std::slice::from_ref(&shelf), request);
        let reply = reply.header("X-Linked-Etag", format!("\"{etag}\""));
        if request.method == "GET" && request.before < 4 { reply.cut(50_000) } else { reply }
    });
    let cache = cache();
    let hub = || Hub::new(HubOptions { attempts: 9, ..options(&server, &cache) }).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(fs::read(hub().get(&model(), "x").unwrap()).unwrap() == contents);
            });
        }
    });
    assert_eq!(names(&folder(&cache, "blobs")), [name]);
    let mut asked = starts(&server);
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), starts(&server).len(), "each goes on where another broke off");
}
