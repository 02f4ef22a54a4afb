//! A hub on loopback that keeps what it is sent, and fails where it is told to.

#[path = "server.rs"]
pub mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use server::{Raw, Reply, raw_server};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Large files are sent in parts of so many bytes.
const PART: usize = 1000;
/// The token that may write.
pub const TOKEN: &str = "hf_secret";

/// What a hub keeps.
#[derive(Default)]
pub struct Kept {
    is_made: bool,
    /// By hash.
    large: BTreeMap<String, Vec<u8>>,
    /// Parts of large files that are on their way, by hash and number.
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// The repository: by path, the content, and whether it is in the storage of large files.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
    /// Messages.
    pub commits: Vec<String>,
    /// The first lines of requests.
    pub lines: Vec<String>,
    /// Statuses that the next requests get whose line has this in it.
    pub faults: Vec<(&'static str, u16)>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

/// A hub, and what it keeps.
pub fn hub() -> (String, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let (own, address) = (Arc::clone(&kept), Arc::new(OnceLock::<String>::new()));
    let at = Arc::clone(&address);
    let url = raw_server(move |request| answer(&mut own.lock().unwrap(), at.wait(), request));
    address.set(url.clone()).unwrap();
    (url, kept)
}

fn answer(kept: &mut Kept, url: &str, request: &Raw) -> Reply {
    let line = request.head.lines().next().unwrap().replace(" http/1.1", "");
    kept.lines.push(line.clone());
    let fault = kept.faults.iter().position(|(part, _)| line.contains(part));
    if let Some(place) = fault {
        return (kept.faults.remove(place).1, "retry-after: 0\r\n", "a fault".to_owned());
    }
    let is_signed = request.head.contains(&format!("authorization: bearer {TOKEN}"));
    assert_ne!(is_signed, line.contains("/storage/"), "{line}");
    let (method, path) = line.split_once(' ').unwrap();
    if let Some(place) = path.strip_prefix("/storage/") {
        let place = place.strip_suffix("?signature=secret").unwrap();
        return storage(kept, method, place, &request.body);
    }
    assert_eq!(method, "post");
    if path.starts_with("/api/models/me/saes/commit/") {
        assert!(request.head.contains("application/x-ndjson"));
        return commit(kept, &request.body);
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    match path {
        "/api/repos/create" => {
            assert_eq!((&asked["name"], &asked["organization"]), (&json!("saes"), &json!("me")));
            let status = if std::mem::replace(&mut kept.is_made, true) { 409 } else { 200 };
            (status, "", json!({ "url": format!("{url}/me/saes") }).to_string())
        }
        "/me/saes.git/info/lfs/objects/batch" => {
            assert!(request.head.contains("accept: application/vnd.git-lfs+json"));
            let objects = asked["objects"].as_array().unwrap();
            let objects: Vec<Value> = objects.iter().map(|file| place(kept, url, file)).collect();
            (200, "", json!({ "transfer": "basic", "objects": objects }).to_string())
        }
        "/verify" => {
            assert!(kept.large.contains_key(asked["oid"].as_str().unwrap()));
            (200, "", "{}".to_owned())
        }
        path if path.starts_with("/api/models/me/saes/preupload/") => {
            let files = asked["files"].as_array().unwrap();
            let files: Vec<Value> = files.iter().map(|file| mode(kept, file)).collect();
            (200, "", json!({ "files": files }).to_string())
        }
        _ => (404, "", format!("no {line}")),
    }
}

/// Where a file belongs, and what is there.
fn mode(kept: &Kept, file: &Value) -> Value {
    let path = file["path"].as_str().unwrap();
    let sample = BASE64.decode(file["sample"].as_str().unwrap()).unwrap();
    assert_eq!(sample.len(), (file["size"].as_u64().unwrap() as usize).min(512));
    let is_lfs = path.ends_with(".safetensors");
    let hash = |(bytes, is_lfs): &(Vec<u8>, bool)| {
        if *is_lfs { hex(&Sha256::digest(bytes)) } else { blob(bytes) }
    };
    json!({
        "path": path,
        "uploadMode": if is_lfs { "lfs" } else { "regular" },
        "shouldIgnore": path.ends_with(".ignored"),
        "oid": kept.files.get(path).map(hash),
    })
}

/// Where a large file is to be sent; nothing of that where it is there.
fn place(kept: &Kept, url: &str, file: &Value) -> Value {
    let (oid, size) = (file["oid"].as_str().unwrap(), file["size"].as_u64().unwrap());
    if kept.large.contains_key(oid) {
        return json!({ "oid": oid, "size": size });
    }
    let place = format!("{url}/storage/{oid}");
    let mut upload = json!({ "href": format!("{place}?signature=secret") });
    let parts = (size as usize).div_ceil(PART);
    if parts > 1 {
        upload["header"] = json!({ "chunk_size": PART.to_string() });
        // Not in their order, as text.
        for part in (1..=parts).rev() {
            upload["header"][part.to_string()] = json!(format!("{place}/{part}?signature=secret"));
        }
    }
    let verify = json!({ "href": format!("{url}/verify") });
    json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
}

/// A large file, a part of one, or the end of its parts.
fn storage(kept: &mut Kept, method: &str, place: &str, body: &[u8]) -> Reply {
    let (oid, part) = place.split_once('/').map_or((place, None), |(oid, part)| (oid, Some(part)));
    let whole = match (method, part) {
        ("put", Some(part)) => {
            kept.parts.insert((oid.to_owned(), part.parse().unwrap()), body.to_vec());
            return (200, "etag: \"tag\"\r\n", String::new());
        }
        ("put", None) => body.to_vec(),
        _ => {
            let asked: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(asked["oid"], oid);
            let mut whole = Vec::new();
            for part in asked["parts"].as_array().unwrap() {
                assert_eq!(part["etag"], "\"tag\"");
                let number = part["partNumber"].as_u64().unwrap() as usize;
                whole.extend(kept.parts.remove(&(oid.to_owned(), number)).unwrap());
            }
            whole
        }
    };
    assert_eq!(hex(&Sha256::digest(&whole)), oid);
    kept.large.insert(oid.to_owned(), whole);
    (200, "", "{}".to_owned())
}

fn commit(kept: &mut Kept, body: &[u8]) -> Reply {
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.ends_with('\n'));
    let mut lines = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(header["key"], "header");
    for line in lines {
        let value = &line["value"];
        let is_lfs = line["key"] == "lfsFile";
        let bytes = if is_lfs {
            let bytes = kept.large[value["oid"].as_str().unwrap()].clone();
            assert_eq!(value["size"], bytes.len());
            bytes
        } else {
            BASE64.decode(value["content"].as_str().unwrap()).unwrap()
        };
        kept.files.insert(value["path"].as_str().unwrap().to_owned(), (bytes, is_lfs));
    }
    kept.commits.push(header["value"]["summary"].as_str().unwrap().to_owned());
    let commit = format!("{:040}", kept.commits.len());
    (200, "", json!({ "commitOid": commit, "commitUrl": "x" }).to_string())
}
