//! The server: who may ask, and what is answered.
//!
//! It listens on loopback alone. Every address begins with a random token, which the address that is printed has; a page of another
//! site does not know it, and is refused by its origin besides (a browser says where a request is from), as is a name that resolves to
//! this machine (DNS rebinding). Nothing that is asked for writes anything.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use oxhttp::model::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use oxhttp::model::{Body, HeaderValue, Method, Request, Response, StatusCode};
use sae_record::layout;
use serde::Serialize;

use crate::prompt::Question;
use crate::{Library, PromptThread, ViewError, page};

/// The longest question, in bytes.
const LONGEST: u64 = 1 << 20;
/// Pages that are answered at the same time.
const CONNECTIONS: usize = 32;

/// What pages of this server may load: nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// The same for the report, which is a file of the runs' folder: it talks to nobody, this server included, and has its scripts and its
/// look in itself.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'nonce-report'; script-src 'nonce-report'; img-src data:; base-uri 'none'; \
                             form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts";
/// Longer than a model takes to load.
const PATIENCE: Duration = Duration::from_mins(10);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// Its address, with the token.
    pub address: String,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Waits until the server ends, which it does by itself only where it cannot go on.
    pub fn join(self) -> std::io::Result<()> {
        self.thread.join().unwrap_or(Ok(()))
    }
}

/// Shows a library on a port of this machine, a free one where it is 0. Without `prompts` no model is loaded.
pub fn serve(
    library: Library,
    prompts: Option<PromptThread>,
    port: u16,
) -> Result<Server, ViewError> {
    let listen = |source| ViewError::Listen { port, source };
    // The server tells nobody which port it was given: a free one is looked for first.
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(listen)?;
    let address: SocketAddr = found.local_addr().map_err(listen)?;
    drop(found);
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| ViewError::Random(error.to_string()))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let site = Site { library, prompts, port: address.port(), token: token.clone() };
    let site = Arc::new(site);
    let listening = oxhttp::Server::new(move |request| site.answer(request))
        .bind(address)
        .with_max_concurrent_connections(CONNECTIONS)
        .with_global_timeout(PATIENCE)
        .spawn()
        .map_err(listen)?;
    let thread = std::thread::spawn(move || listening.join());
    Ok(Server { address: format!("http://{address}/{token}/"), thread })
}

/// What is served.
struct Site {
    library: Library,
    prompts: Option<PromptThread>,
    port: u16,
    token: String,
}

/// What is answered.
struct Answered {
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answered {
    fn of(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: StatusCode::OK, kind, body: body.into() }
    }

    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::of("application/json", body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self { status, ..Self::of("text/plain; charset=utf-8", message) }
    }
}

impl Site {
    fn answer(&self, request: &mut Request<Body>) -> Response<Body> {
        let Answered { status, kind, body } = self.answered(request);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let is_report = kind == REPORT;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(if is_report { PAGE } else { kind }));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let policy = HeaderValue::from_static(if is_report { REPORT_POLICY } else { POLICY });
        headers.insert(HeaderName::from_static("content-security-policy"), policy);
        response
    }

    fn answered(&self, request: &mut Request<Body>) -> Answered {
        if let Err(why) = self.check(request) {
            return Answered::error(StatusCode::FORBIDDEN, why);
        }
        let uri = request.uri().clone();
        let path = uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(&self.token));
        let Some(path) = path.filter(|path| path.starts_with('/')) else {
            return Answered::error(
                StatusCode::FORBIDDEN,
                "open the address that `sae view` printed",
            );
        };
        let method = request.method().clone();
        let outcome = match (method, path) {
            (Method::GET, "/") => Ok(Answered::of(PAGE, page::HTML)),
            (Method::GET, "/view.css") => Ok(Answered::of("text/css", page::style())),
            (Method::GET, "/view.js") => Ok(Answered::of("text/javascript", page::script())),
            (Method::GET, "/report.html") => self.report(),
            (Method::GET, "/about") => Ok(Answered::json(&self.about())),
            (Method::GET, "/rows") => number(&uri, "dictionary")
                .and_then(|d| self.library.rows(d))
                .map(|rows| Answered::json(&rows)),
            (Method::GET, "/card") => number(&uri, "dictionary")
                .and_then(|d| self.library.card(d, number(&uri, "feature")? as u32))
                .map(|card| Answered::json(&card)),
            (Method::POST, "/search") => self.search(&uri, request),
            (Method::POST, "/prompt") => self.prompt(request),
            (Method::GET | Method::POST, _) => {
                return Answered::error(StatusCode::NOT_FOUND, "there is nothing at this address");
            }
            _ => return Answered::error(StatusCode::METHOD_NOT_ALLOWED, "GET and POST alone"),
        };
        outcome.unwrap_or_else(|error| {
            let status = match error {
                ViewError::Request(_) => StatusCode::BAD_REQUEST,
                ViewError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Answered::error(status, &error.to_string())
        })
    }

    /// Refuses names that only resolve to this machine, and pages of other sites.
    fn check(&self, request: &Request<Body>) -> Result<(), &'static str> {
        let text = |name: &HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
        let own = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port));
        // A request's address has the host where its header is left out.
        let host = text(&HOST).map(<[u8]>::to_vec).or_else(|| {
            request.uri().authority().map(|authority| authority.as_str().as_bytes().to_vec())
        });
        if !host.is_some_and(|host| own.iter().any(|own| own.as_bytes() == host)) {
            return Err("this server is 127.0.0.1 alone");
        }
        let is_own =
            |origin: &[u8]| own.iter().any(|own| format!("http://{own}").as_bytes() == origin);
        if text(&ORIGIN).is_some_and(|origin| !is_own(origin)) {
            return Err("a page of another site must not ask");
        }
        let from = text(&HeaderName::from_static("sec-fetch-site"));
        if from.is_some_and(|from| from != b"same-origin" && from != b"none") {
            return Err("a page of another site must not ask");
        }
        Ok(())
    }

    fn about(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct About<T: Serialize> {
            name: String,
            has_model: bool,
            has_report: bool,
            dictionaries: T,
        }
        let folder = self.library.folder();
        About {
            name: folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            has_model: self.prompts.is_some(),
            has_report: layout::report(folder).is_file(),
            dictionaries: self.library.shelves(),
        }
    }

    fn report(&self) -> Result<Answered, ViewError> {
        let path = layout::report(self.library.folder());
        match std::fs::read(&path) {
            Ok(report) => Ok(Answered::of(REPORT, report)),
            Err(error) => {
                Err(ViewError::Request(format!("cannot read {}: {error}", path.display())))
            }
        }
    }

    fn search(
        &self,
        uri: &oxhttp::model::Uri,
        request: &mut Request<Body>,
    ) -> Result<Answered, ViewError> {
        let dictionary = number(uri, "dictionary")?;
        let text: String = body(request)?;
        if text.is_empty() {
            return Err(ViewError::Request("a search for nothing".to_owned()));
        }
        Ok(Answered::json(&self.library.search(dictionary, &text)?))
    }

    fn prompt(&self, request: &mut Request<Body>) -> Result<Answered, ViewError> {
        let Some(prompts) = &self.prompts else {
            return Err(ViewError::Request("no model is loaded: --no-model".to_owned()));
        };
        let question: Question = body(request)?;
        let run = self.library.run(&question.run)?;
        Ok(Answered::json(&prompts.ask(run, question)?))
    }
}

const PAGE: &str = "text/html; charset=utf-8";
/// The report is a page, too; this tells it from the others.
const REPORT: &str = "report";

/// The JSON that a request brings.
fn body<T: serde::de::DeserializeOwned>(request: &mut Request<Body>) -> Result<T, ViewError> {
    let bad = |message: String| ViewError::Request(message);
    let mut bytes = Vec::new();
    request
        .body_mut()
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(format!("cannot read the request: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(bad(format!("the request has more than {LONGEST} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("expected JSON: {error}")))
}

/// A number of an address's query.
fn number(uri: &oxhttp::model::Uri, name: &str) -> Result<usize, ViewError> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    let number = found.and_then(|value| value.parse().ok());
    number.ok_or_else(|| ViewError::Request(format!("expected {name}=NUMBER, found {found:?}")))
}
