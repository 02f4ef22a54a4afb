//! Files into a repository of the Hugging Face hub, as one commit.
//!
//! The protocol is that of `huggingface_hub` 0.36 and 2.4 (`_commit_api.py`, `lfs.py`): the repository is made where it is missing; the
//! hub says of every file whether it belongs into the commit or into its large-file storage (Git LFS); the latter are sent first, whole or
//! in parts, those that are there already not again; then one commit names them all. So a publication that was interrupted goes on, and
//! one of unchanged files is none.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::PublishError;
use crate::http::{
    Body, Client, ClientOptions, HttpError, Method, Reply, Request, Secret, is_passing,
};

/// Bytes of a file by which the hub tells what it is.
const SAMPLE: usize = 512;
/// Files in a request.
const FILES: usize = 256;
/// The media type of Git LFS.
const LFS: &str = "application/vnd.git-lfs+json";
/// The media type of a commit.
const COMMIT: &str = "application/x-ndjson";

/// Where files go.
#[derive(Clone)]
pub struct HubTarget {
    /// The hub, as `https://huggingface.co`.
    pub endpoint: String,
    /// The token, which may write there.
    pub token: Option<String>,
    /// `owner/name`.
    pub repository: String,
    /// The branch.
    pub revision: String,
    /// Whether a repository that is made now is shown to nobody else.
    pub is_private: bool,
    /// How requests are made; the token is not among them.
    pub requests: ClientOptions,
}

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its path there.
    pub path: String,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The same as a file here.
    File(PathBuf),
    /// A text.
    Text(String),
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The commit; none where nothing has changed.
    pub commit: Option<String>,
    /// Files in the commit.
    pub files: usize,
    /// Bytes that were sent into the storage of large files.
    pub sent: u64,
    /// Where the repository is.
    pub url: String,
}

/// A file with what the hub is told of it.
struct Prepared<'a> {
    upload: &'a Upload,
    size: u64,
    sample: Vec<u8>,
    sha256: String,
    /// The hash of a git blob.
    blob: String,
    is_lfs: bool,
}

/// Puts files into a repository, as one commit with this message. `notice` is told how many bytes of all have been looked after.
pub fn publish(
    target: &HubTarget,
    uploads: &[Upload],
    message: &str,
    is_interrupted: &(dyn Fn() -> bool + Sync),
    notice: &mut dyn FnMut(u64),
) -> Result<Published, PublishError> {
    let hub = Hub::new(target, is_interrupted)?;
    let mut prepared =
        uploads.iter().map(Prepared::of).collect::<Result<Vec<Prepared<'_>>, _>>()?;
    hub.create()?;
    let mut wanted = Vec::with_capacity(prepared.len());
    while !prepared.is_empty() {
        let rest = prepared.split_off(prepared.len().min(FILES));
        wanted.extend(hub.changed(std::mem::replace(&mut prepared, rest))?);
    }
    let url = format!("{}/{}", hub.endpoint, target.repository);
    if wanted.is_empty() {
        return Ok(Published { commit: None, files: 0, sent: 0, url });
    }
    let mut sent = 0;
    let (mut done, large): (u64, Vec<&Prepared<'_>>) =
        (0, wanted.iter().filter(|file| file.is_lfs).collect());
    for chunk in large.chunks(FILES) {
        let objects = hub.ask_for_places(chunk)?;
        for file in chunk {
            if let Some(object) = objects.iter().find(|object| object["oid"] == file.sha256) {
                sent += hub.send_large(file, object)?;
            } else {
                return Err(hub.protocol(
                    "send large files",
                    "an object for every file",
                    &file.upload.path,
                ));
            }
            done += file.size;
            notice(done);
        }
    }
    let commit = hub.commit(&wanted, message)?;
    notice(wanted.iter().map(|file| file.size).sum());
    Ok(Published { commit: Some(commit), files: wanted.len(), sent, url })
}

/// Bytes of files together.
pub fn size(uploads: &[Upload]) -> Result<u64, PublishError> {
    let sizes = uploads.iter().map(|upload| match &upload.content {
        Content::Text(text) => Ok(text.len() as u64),
        Content::File(path) => {
            let data = std::fs::metadata(path).map_err(PublishError::file("read", path))?;
            Ok(data.len())
        }
    });
    sizes.sum()
}

impl<'a> Prepared<'a> {
    fn of(upload: &'a Upload) -> Result<Self, PublishError> {
        let size = size(std::slice::from_ref(upload))?;
        let mut sha256 = Sha256::new();
        let mut blob = Sha1::new();
        blob.update(format!("blob {size}\0"));
        let mut sample = Vec::new();
        let mut take = |bytes: &[u8]| {
            sha256.update(bytes);
            blob.update(bytes);
            let room = SAMPLE.saturating_sub(sample.len()).min(bytes.len());
            sample.extend_from_slice(&bytes[..room]);
        };
        match &upload.content {
            Content::Text(text) => take(text.as_bytes()),
            Content::File(path) => {
                let failed = PublishError::file("read", path);
                let mut file = match std::fs::File::open(path) {
                    Ok(file) => file,
                    Err(error) => return Err(failed(error)),
                };
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let n = file.read(&mut buffer).map_err(PublishError::file("read", path))?;
                    if n == 0 {
                        break;
                    }
                    take(&buffer[..n]);
                }
            }
        }
        let (sha256, blob) = (hex(&sha256.finalize()), hex(&blob.finalize()));
        Ok(Self { upload, size, sample, sha256, blob, is_lfs: false })
    }

    fn body(&self, from: u64, length: u64) -> Body<'_> {
        match &self.upload.content {
            Content::Text(text) => {
                Body::Bytes(&text.as_bytes()[from as usize..(from + length) as usize])
            }
            Content::File(path) => Body::File(path, from, length),
        }
    }

    /// All of it, for a commit that it is in itself.
    fn bytes(&self) -> Result<Vec<u8>, PublishError> {
        match &self.upload.content {
            Content::Text(text) => Ok(text.clone().into_bytes()),
            Content::File(path) => std::fs::read(path).map_err(PublishError::file("read", path)),
        }
    }
}

struct Hub<'a> {
    target: &'a HubTarget,
    endpoint: String,
    client: Client,
    is_interrupted: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Hub<'a> {
    fn new(
        target: &'a HubTarget,
        is_interrupted: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self, PublishError> {
        let Some(token) = target.token.clone() else {
            return Err(PublishError::Input(
                "no token: set HF_TOKEN to one that may write to the repository (settings, access tokens, of the hub)"
                    .to_owned(),
            ));
        };
        let secret = Some(Secret { header: "authorization", before: "Bearer ", key: token });
        let client = Client::new(ClientOptions { secret, ..target.requests.clone() });
        let endpoint = target.endpoint.trim_end_matches('/').to_owned();
        Ok(Self { target, endpoint, client, is_interrupted })
    }

    fn create(&self) -> Result<(), PublishError> {
        let (owner, name) = self.target.repository.split_once('/').ok_or_else(|| {
            let found = &self.target.repository;
            PublishError::Input(format!("expected a repository owner/name, found {found}"))
        })?;
        let mut body = json!({ "name": name, "organization": owner, "type": "model" });
        if self.target.is_private {
            body["private"] = json!(true);
        }
        let action = format!("make the repository {}", self.target.repository);
        let url = format!("{}/api/repos/create", self.endpoint);
        let busy = |status: u16, text: &str| {
            is_passing(status) || (status == 409 && text.contains("conflicting operation"))
        };
        let reply = self.post(&url, "application/json", &body.to_string(), true, &busy, &action)?;
        // It is there already, or the token may write to it and make none.
        if reply.is_answer() || matches!(reply.status, 403 | 409) {
            return Ok(());
        }
        Err(self.refused(&action, &url, &reply))
    }

    /// The files that differ from those of the repository, with where each belongs.
    fn changed<'b>(&self, files: Vec<Prepared<'b>>) -> Result<Vec<Prepared<'b>>, PublishError> {
        let action = format!("ask where files of {} belong", self.target.repository);
        let list: Vec<Value> = files
            .iter()
            .map(|file| {
                json!({
                    "path": file.upload.path,
                    "sample": BASE64.encode(&file.sample),
                    "size": file.size,
                })
            })
            .collect();
        let url = self.api("preupload");
        let found = self.answer(&url, &json!({ "files": list }), &action)?;
        let modes = found["files"].as_array().cloned().unwrap_or_default();
        let mut wanted = Vec::with_capacity(files.len());
        for mut file in files {
            let mode = modes.iter().find(|mode| mode["path"] == file.upload.path);
            let Some(mode) = mode.and_then(|own| Some((own, own["uploadMode"].as_str()?))) else {
                return Err(self.protocol(
                    &action,
                    "an uploadMode for every file",
                    &found.to_string(),
                ));
            };
            let (own, mode) = mode;
            if own["shouldIgnore"] == true {
                continue;
            }
            // Storage knows no empty files.
            file.is_lfs = mode == "lfs" && file.size > 0;
            let there = own["oid"].as_str();
            let same = if file.is_lfs { &file.sha256 } else { &file.blob };
            if there != Some(same.as_str()) {
                wanted.push(file);
            }
        }
        Ok(wanted)
    }

    /// Where large files are to be sent: an object each.
    fn ask_for_places(&self, files: &[&Prepared<'_>]) -> Result<Vec<Value>, PublishError> {
        let action = format!("send large files to {}", self.target.repository);
        let objects: Vec<Value> =
            files.iter().map(|file| json!({ "oid": file.sha256, "size": file.size })).collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": self.target.revision },
        });
        let url =
            format!("{}/{}.git/info/lfs/objects/batch", self.endpoint, self.target.repository);
        let reply = self.post(
            &url,
            LFS,
            &body.to_string(),
            true,
            &|status, _| is_passing(status),
            &action,
        )?;
        let found = self.json(&action, &url, &reply)?;
        let objects = found["objects"].as_array().cloned().unwrap_or_default();
        for object in &objects {
            if let Some(error) = object["error"]["message"].as_str() {
                let message = format!("the hub says of {}: {error}", object["oid"]);
                return Err(PublishError::Protocol { action, message });
            }
        }
        Ok(objects)
    }

    /// Sends a large file where it is to go, unless it is there; how many bytes that were.
    fn send_large(&self, file: &Prepared<'_>, object: &Value) -> Result<u64, PublishError> {
        let path = &file.upload.path;
        let action = format!("send {path}");
        let upload = &object["actions"]["upload"];
        let Some(href) = upload["href"].as_str() else { return Ok(0) };
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        if let Some(length) = number(&upload["header"]["chunk_size"]).filter(|length| *length > 0) {
            self.send_in_parts(file, href, &upload["header"], length)?;
        } else {
            self.put(href, file.body(0, file.size), &action)?;
        }
        if let Some(verify) = object["actions"]["verify"]["href"].as_str() {
            let body = json!({ "oid": file.sha256, "size": file.size }).to_string();
            let action = format!("have {path} verified");
            let passes = |status: u16, _: &str| is_passing(status);
            // The token is for the hub alone.
            let is_own = origin(verify) == origin(&self.endpoint);
            let reply = self.post(verify, "application/json", &body, is_own, &passes, &action)?;
            if !reply.is_answer() {
                return Err(self.refused(&action, verify, &reply));
            }
        }
        Ok(file.size)
    }

    /// The header has the address of every part by its number.
    fn send_in_parts(
        &self,
        file: &Prepared<'_>,
        href: &str,
        header: &Value,
        length: u64,
    ) -> Result<(), PublishError> {
        let action = format!("send {} in parts", file.upload.path);
        let mut places: Vec<(u64, &str)> = header
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.parse().ok()?, value.as_str()?)))
            .collect();
        places.sort_unstable();
        let wanted = file.size.div_ceil(length);
        if places.len() as u64 != wanted {
            let expected = format!("{wanted} parts of {length} bytes");
            return Err(self.protocol(&action, &expected, &format!("{} of them", places.len())));
        }
        let mut parts = Vec::with_capacity(places.len());
        for (place, (number, url)) in places.into_iter().enumerate() {
            let from = place as u64 * length;
            let reply = self.put(url, file.body(from, length.min(file.size - from)), &action)?;
            let Some(etag) = reply.etag.filter(|etag| !etag.is_empty()) else {
                return Err(self.protocol(&action, "an ETag of every part", "none"));
            };
            parts.push(json!({ "partNumber": number, "etag": etag }));
        }
        let body = json!({ "oid": file.sha256, "parts": parts }).to_string();
        let passes = |status: u16, _: &str| is_passing(status);
        // Like the parts, it goes to the storage, which the token is not for.
        let reply = self.post(href, LFS, &body, false, &passes, &action)?;
        if reply.is_answer() { Ok(()) } else { Err(self.refused_by_storage(&action, href, &reply)) }
    }

    fn put(&self, url: &str, body: Body<'_>, action: &str) -> Result<Reply, PublishError> {
        let request = Request {
            method: Method::Put,
            url,
            headers: &[],
            body,
            is_signed: false,
            is_repeatable: true,
        };
        let reply = self
            .client
            .send(request, &|status, _| is_passing(status), self.is_interrupted)
            .map_err(PublishError::http(action))?;
        if reply.is_answer() {
            Ok(reply)
        } else {
            Err(self.refused_by_storage(action, url, &reply))
        }
    }

    fn commit(&self, files: &[Prepared<'_>], message: &str) -> Result<String, PublishError> {
        let action = format!("commit to {}", self.target.repository);
        let mut lines =
            vec![json!({ "key": "header", "value": { "summary": message, "description": "" } })];
        for file in files {
            let path = &file.upload.path;
            lines.push(if file.is_lfs {
                let value = json!({
                    "path": path, "algo": "sha256", "oid": file.sha256, "size": file.size,
                });
                json!({ "key": "lfsFile", "value": value })
            } else {
                let content = BASE64.encode(file.bytes()?);
                json!({
                    "key": "file",
                    "value": { "content": content, "path": path, "encoding": "base64" },
                })
            });
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let url = self.api("commit");
        // It is not sent twice unless the hub says that it is busy.
        let passes = |status: u16, _: &str| matches!(status, 429 | 503);
        let reply = self.post(&url, COMMIT, &body, true, &passes, &action)?;
        let found = self.json(&action, &url, &reply)?;
        let commit = found["commitOid"].as_str().map(str::to_owned);
        commit.ok_or_else(|| self.protocol(&action, "a commitOid", &found.to_string()))
    }

    fn api(&self, what: &str) -> String {
        let revision: String = self
            .target
            .revision
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect();
        format!("{}/api/models/{}/{what}/{revision}", self.endpoint, self.target.repository)
    }

    fn answer(&self, url: &str, body: &Value, action: &str) -> Result<Value, PublishError> {
        let passes = |status: u16, _: &str| is_passing(status);
        let reply = self.post(url, "application/json", &body.to_string(), true, &passes, action)?;
        self.json(action, url, &reply)
    }

    fn post(
        &self,
        url: &str,
        media: &str,
        body: &str,
        is_signed: bool,
        passes: &dyn Fn(u16, &str) -> bool,
        action: &str,
    ) -> Result<Reply, PublishError> {
        let headers = [("content-type", media), ("accept", media)];
        let headers = if media == LFS { &headers[..] } else { &headers[..1] };
        let body = Body::Bytes(body.as_bytes());
        // A commit that has failed may have arrived.
        let is_repeatable = media != COMMIT;
        let request =
            Request { method: Method::Post, url, headers, body, is_signed, is_repeatable };
        self.client.send(request, passes, self.is_interrupted).map_err(PublishError::http(action))
    }

    fn json(&self, action: &str, url: &str, reply: &Reply) -> Result<Value, PublishError> {
        if !reply.is_answer() {
            return Err(self.refused(action, url, reply));
        }
        serde_json::from_str(&reply.text).map_err(|error| {
            let found = format!("{error} in {}", self.client.beginning(&reply.text));
            self.protocol(action, "JSON", &found)
        })
    }

    /// The hub itself refuses.
    fn refused(&self, action: &str, url: &str, reply: &Reply) -> PublishError {
        let hint = match reply.status {
            401 | 403 => "; the token (HF_TOKEN) has to be one that may write there",
            404 => {
                "; the repository or the branch is missing, and this token may not make the repository; a branch is made on the hub"
            }
            _ => "",
        };
        let source = match self.client.refused(url, reply) {
            HttpError::Status { url, status, attempts, message } => {
                HttpError::Status { url, status, attempts, message: message + hint }
            }
            source => source,
        };
        PublishError::Http { action: action.to_owned(), source }
    }

    /// The storage refuses, which the token is not for.
    fn refused_by_storage(&self, action: &str, url: &str, reply: &Reply) -> PublishError {
        PublishError::Http { action: action.to_owned(), source: self.client.refused(url, reply) }
    }

    fn protocol(&self, action: &str, expected: &str, found: &str) -> PublishError {
        let found = self.client.beginning(found);
        let message = format!(
            "expected {expected}, found {found}; is {} (HF_ENDPOINT) a Hugging Face hub?",
            self.endpoint
        );
        PublishError::Protocol { action: action.to_owned(), message }
    }
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let end = url.find("://").map_or(0, |place| place + 3);
    url.get(end..).and_then(|rest| rest.find('/')).map_or(url, |length| &url[..end + length])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files below a folder, as they are to lie below `to` in the repository.
pub fn files_below(folder: &Path, to: &str) -> Result<Vec<Upload>, PublishError> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(PublishError::file("read", folder))?;
    for entry in entries {
        let entry = entry.map_err(PublishError::file("read", folder))?;
        let path = entry.path();
        let name = format!("{to}/{}", entry.file_name().to_string_lossy());
        if path.is_dir() {
            found.extend(files_below(&path, &name)?);
        } else {
            found.push(Upload { path: name, content: Content::File(path) });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
