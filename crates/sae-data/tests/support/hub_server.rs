//! A hub on loopback: what the real one answers, and the faults that a test puts before its answers.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What came.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET or HEAD.
    pub method: String,
    /// As it was sent, percent signs and all.
    pub path: String,
    /// With names in lower case.
    pub headers: HashMap<String, String>,
    /// When it came.
    pub at: Instant,
    /// Requests of this method for this path before it.
    pub before: usize,
}

impl Request {
    /// The first byte asked for.
    pub fn start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What goes back.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
    is_silent: bool,
}

impl Reply {
    /// No body yet.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// No answer at all.
    pub fn silence() -> Self {
        Self::new(0).cut(0).silent()
    }

    /// With a header, instead of one of the same name.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Breaks off after so many bytes of the body.
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// Keeps the connection open where it would break off.
    pub fn silent(mut self) -> Self {
        self.is_silent = true;
        self
    }

    /// Bytes, or the range of them that was asked for.
    pub fn bytes(bytes: &[u8], request: &Request) -> Self {
        let size = bytes.len();
        match request.start() {
            None => Self::new(200).body(bytes),
            Some(start) if start >= size => {
                Self::new(416).header("Content-Range", format!("bytes */{size}"))
            }
            Some(start) => Self::new(206)
                .header("Content-Range", format!("bytes {start}-{}/{size}", size - 1))
                .body(&bytes[start..]),
        }
        .header("Accept-Ranges", "bytes")
    }
}

/// A listener that answers until it is dropped.
pub struct Server {
    /// Its address.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    is_closed: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request with what the function gives.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let is_closed = Arc::new(AtomicBool::new(false));
        let (log, closed, answer) = (requests.clone(), is_closed.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let (log, closed, answer) = (log.clone(), closed.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &log, &closed, &*answer));
            }
        });
        Self { url, requests, is_closed }
    }

    /// Everything that came, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Method and path of everything that came.
    pub fn log(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then closes.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    is_closed: &AtomicBool,
    answer: &dyn Fn(&Request) -> Reply,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut first = first.split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap(), first.next().unwrap());
    let headers = lines
        .map_while(|line| {
            let line = line.ok()?;
            let (name, value) = line.split_once(": ")?;
            Some((name.to_lowercase(), value.to_owned()))
        })
        .collect();
    let request = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|r| r.method == method && r.path == path).count();
        log.push(Request { method, path, headers, at: Instant::now(), before });
        log.last().unwrap().clone()
    };
    let reply = answer(&request);
    if reply.status != 0 {
        let mut head =
            vec![format!("HTTP/1.1 {} Something", reply.status), "Connection: close".to_owned()];
        head.extend(reply.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let has_length = |name: &str| matches!(name, "Content-Length" | "Transfer-Encoding");
        if !reply.headers.iter().any(|(name, _)| has_length(name)) {
            head.push(format!("Content-Length: {}", reply.body.len()));
        }
        let head = head.join("\r\n") + "\r\n\r\n";
        let sent = if request.method == "HEAD" { 0 } else { reply.cut.unwrap_or(reply.body.len()) };
        // The client may have gone, which is its right.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&reply.body[..sent]);
    }
    while reply.is_silent && !is_closed.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A repository at a revision, as the hub has it.
pub struct Shelf {
    /// `models` or `datasets`.
    pub kind: &'static str,
    /// `owner/name`.
    pub name: &'static str,
    /// A branch.
    pub revision: &'static str,
    /// What it stands for.
    pub commit: String,
    /// Names and contents.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Needed to see it.
    pub token: Option<&'static str>,
    /// For files kept in LFS; `None` where the hub sends the bytes itself.
    pub lfs: Option<Lfs>,
}

/// Where the bytes of files in LFS are, and what the hub calls them.
pub struct Lfs {
    /// The host that has the bytes, by a hash of its own.
    pub cdn: String,
    /// The SHA-256 of contents.
    pub etag: fn(&[u8]) -> String,
}

impl Shelf {
    /// A public repository at `main`.
    pub fn new(kind: &'static str, name: &'static str, files: &[(&'static str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect();
        Self {
            kind,
            name,
            revision: "main",
            commit: "a1".repeat(20),
            files,
            token: None,
            lfs: None,
        }
    }

    /// The hub's answer, if it is about this repository.
    fn answer(&self, request: &Request) -> Option<Reply> {
        let path = request.path.strip_prefix('/')?;
        let prefix = if self.kind == "models" { "" } else { "datasets/" };
        let at = |revision: &str| {
            revision == self.revision.replace('/', "%2F") || revision == self.commit
        };
        let listed = path.strip_prefix(&format!("api/{}/{}/revision/", self.kind, self.name));
        let resolved = path.strip_prefix(&format!("{prefix}{}/resolve/", self.name));
        let (revision, file) = match (listed, resolved) {
            (Some(revision), _) => (revision, None),
            (None, Some(rest)) => {
                rest.split_once('/').map(|(revision, file)| (revision, Some(file)))?
            }
            (None, None) => return None,
        };
        let token =
            request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if self.token.is_some() && token != self.token {
            let reply = Reply::new(401).header("X-Error-Code", "GatedRepo");
            return Some(
                reply.header("X-Error-Message", "Access to this repository is restricted"),
            );
        }
        if !at(revision) {
            return None;
        }
        let Some(file) = file else {
            let names: Vec<_> = self
                .files
                .iter()
                .map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#))
                .collect();
            let (commit, names) = (&self.commit, names.join(", "));
            let body = format!(r#"{{"sha": "{commit}", "siblings": [{names}], "private": false}}"#);
            return Some(Reply::new(200).body(body));
        };
        let Some((_, bytes)) = self.files.iter().find(|(name, _)| encoded(name) == file) else {
            return Some(Reply::new(404).header("X-Error-Code", "EntryNotFound"));
        };
        let reply = match &self.lfs {
            None => Reply::bytes(bytes, request).header("ETag", format!("\"{}\"", etag(bytes))),
            Some(lfs) => Reply::new(302)
                .header("Location", format!("{}/{}?signed=yes", lfs.cdn, etag(bytes)))
                .header("X-Linked-Size", bytes.len().to_string())
                .header("X-Linked-Etag", format!("\"{}\"", (lfs.etag)(bytes)))
                .body("see other"),
        };
        Some(reply.header("X-Repo-Commit", &self.commit))
    }
}

/// The hub's answer to a request.
pub fn answer(shelves: &[Shelf], request: &Request) -> Reply {
    if let Some(reply) = shelves.iter().find_map(|shelf| shelf.answer(request)) {
        return reply;
    }
    let known = shelves.iter().any(|shelf| request.path.contains(&format!("/{}/", shelf.name)));
    let code = if known { "RevisionNotFound" } else { "RepoNotFound" };
    Reply::new(404).header("X-Error-Code", code)
}

/// A content host's answer.
pub fn bytes_by_hash(contents: &[Vec<u8>], request: &Request) -> Reply {
    let found =
        contents.iter().find(|bytes| request.path == format!("/{}?signed=yes", etag(bytes)));
    found
        .map_or(Reply::new(403), |bytes| Reply::bytes(bytes, request).header("ETag", "\"another\""))
}

/// A hash that names contents, other than theirs in LFS.
pub fn etag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn encoded(name: &str) -> String {
    name.replace('%', "%25").replace(' ', "%20").replace('#', "%23").replace('?', "%3F")
}
