//! What the tests of the hub share: clients of a hub on loopback, and what its messages must say.

#![allow(dead_code)] // No test needs all of it.

pub mod hub_server;

use std::time::Duration;

use hub_server::{Reply, Request, Server, Shelf, answer};
use sae_data::hub::{Hub, HubError, HubOptions, Repository};
use tempfile::TempDir;

pub const TOKEN: &str = "hf_secret";

pub fn options(server: &Server, cache: &TempDir) -> HubOptions {
    let mut options = HubOptions::new(cache.path().join("hub"));
    options.endpoint.clone_from(&server.url);
    options.first_delay = Duration::from_millis(5);
    options.attempts = 3;
    options
}

pub fn hub(server: &Server, cache: &TempDir) -> Hub {
    Hub::new(options(server, cache)).unwrap()
}

pub fn offline(server: &Server, cache: &TempDir) -> Hub {
    Hub::new(HubOptions { offline: true, ..options(server, cache) }).unwrap()
}

pub fn cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A hub with these repositories.
pub fn serve(shelves: Vec<Shelf>) -> Server {
    Server::start(move |request| answer(&shelves, request))
}

/// A hub with the model `a/b`, whose one file `x` it answers for as the function says.
pub fn serve_file(
    bytes: &[u8],
    fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let shelves = vec![Shelf::new("models", "a/b", &[("x", bytes)])];
    Server::start(move |request| fault(request, answer(&shelves, request)))
}

/// Bytes that are different everywhere.
pub fn bytes(count: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(count)
        .collect()
}

pub fn model() -> Repository {
    Repository::model("a/b")
}

pub fn starts(server: &Server) -> Vec<Option<usize>> {
    let gets = server.requests().into_iter().filter(|request| request.method == "GET");
    gets.map(|request| request.start()).collect()
}

/// The message, after checking that it names all of these and not the token.
#[track_caller]
pub fn message<T: std::fmt::Debug>(result: Result<T, HubError>, parts: &[&str]) -> String {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains(TOKEN), "{message}");
    message
}
