//! Requests to services: what passes (408, 409 where it is said to, 425, 429, 5xx, a broken connection) is tried again, later and later, or
//! when `Retry-After` says; what may not be sent twice, only where it cannot have arrived. A key goes with a request, and into no message.

use std::time::{Duration, Instant};

/// How requests are made.
#[derive(Clone)]
pub struct ClientOptions {
    /// How long an answer may take.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// The pause before the second attempt; each later one is twice as long, up to a minute.
    pub first_pause: Duration,
    /// The header that proves who asks, and its secret.
    pub secret: Option<Secret>,
}

/// A secret, and the header that it goes in.
#[derive(Clone)]
pub struct Secret {
    /// The header's name.
    pub header: &'static str,
    /// What stands before the secret in it, as `Bearer `.
    pub before: &'static str,
    /// The secret.
    pub key: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(5),
            retries: 6,
            first_pause: Duration::from_secs(1),
            secret: None,
        }
    }
}

/// A request that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nothing could be sent or nothing came.
    #[error("cannot reach {url} ({attempts} attempts): {message}")]
    Unreachable {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened last.
        message: String,
    },
    /// The service refuses the request.
    #[error("{url} answers {status} ({attempts} attempts): {message}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// The beginning of what it said.
        message: String,
    },
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Body<'a>,
    /// Whether the secret goes with it.
    pub is_signed: bool,
    /// Whether the same may be sent twice; what may have arrived is not sent again otherwise.
    pub is_repeatable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Post,
    Put,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    Bytes(&'a [u8]),
    /// A part of a file: from where, and how many bytes.
    File(&'a std::path::Path, u64, u64),
}

/// What came back: an answer, or a refusal that does not pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub status: u16,
    pub text: String,
    /// Where it points to, and the header `etag`.
    pub location: Option<String>,
    pub etag: Option<String>,
    pub attempts: u32,
}

impl Reply {
    pub fn is_answer(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Whoever makes requests.
pub(crate) struct Client {
    options: ClientOptions,
    agent: ureq::Agent,
}

/// Letters of an error that are shown.
const SHOWN: usize = 400;
/// The longest answer, in bytes.
const LONGEST_ANSWER: u64 = 16 << 20;
/// How long a large file may take to get on.
const STALL: Duration = Duration::from_mins(1);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What became of an attempt.
enum Attempt {
    Done(Reply),
    /// It may be answered later, at this time from now where that is known.
    Passing(HttpError, Option<Duration>),
    Failed(HttpError),
}

impl Client {
    pub fn new(options: ClientOptions) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // What is sent on would lose its text or its key.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout));
        let agent = config.build().into();
        Self { options, agent }
    }

    /// What a service says to a request. Statuses that pass are tried again as long as `passes` says so; it is told status and text.
    pub fn send(
        &self,
        request: Request<'_>,
        passes: &dyn Fn(u16, &str) -> bool,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Reply, HttpError> {
        let mut attempts = 0;
        loop {
            if is_interrupted() {
                return Err(HttpError::Interrupted);
            }
            attempts += 1;
            match self.attempt(request, passes, is_interrupted, attempts) {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Failed(error) => return Err(error),
                Attempt::Passing(error, wait) => {
                    if attempts > self.options.retries {
                        return Err(error);
                    }
                    let doubled = self.options.first_pause * 2_u32.pow(attempts.min(10) - 1);
                    pause(wait.unwrap_or(doubled).min(LONGEST_PAUSE), is_interrupted)?;
                }
            }
        }
    }

    /// The error that a refusal is.
    pub fn refused(&self, url: &str, reply: &Reply) -> HttpError {
        let mut message = self.beginning(&reply.text);
        if let Some(place) = &reply.location {
            message = self.without_secret(&format!("it points to {place}: give that address"));
        }
        let (status, attempts) = (reply.status, reply.attempts);
        HttpError::Status { url: without_query(url).to_owned(), status, attempts, message }
    }

    fn attempt(
        &self,
        request: Request<'_>,
        passes: &dyn Fn(u16, &str) -> bool,
        is_interrupted: &(dyn Fn() -> bool + Sync),
        attempts: u32,
    ) -> Attempt {
        let unreachable = |message: String| HttpError::Unreachable {
            url: self.without_secret(without_query(request.url)),
            attempts,
            message: self.without_secret(&message),
        };
        let broken = |message: String| {
            if request.is_repeatable {
                Attempt::Passing(unreachable(message), None)
            } else {
                Attempt::Failed(unreachable(message))
            }
        };
        let mut response = match self.start(request, is_interrupted) {
            Ok(response) => response,
            // What is wrong with the address is wrong the next time, too.
            Err(
                error @ (ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::InvalidProxyUrl),
            ) => return Attempt::Failed(unreachable(error.to_string())),
            // Nothing was sent.
            Err(error @ (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)) => {
                return Attempt::Passing(unreachable(error.to_string()), None);
            }
            Err(error) => return broken(error.to_string()),
        };
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.trim().to_owned())
        };
        let wait = header("retry-after").and_then(|text| text.parse().ok());
        let wait = wait.map(Duration::from_secs);
        let (location, etag) = (header("location"), header("etag"));
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let text = match text {
            Ok(text) => text,
            Err(error) => return broken(error.to_string()),
        };
        let reply = Reply { status, text, location, etag, attempts };
        if !reply.is_answer() && passes(status, &reply.text) {
            return Attempt::Passing(self.refused(request.url, &reply), wait);
        }
        Attempt::Done(reply)
    }

    fn start(
        &self,
        request: Request<'_>,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut builder = match request.method {
            Method::Post => self.agent.post(request.url),
            Method::Put => self.agent.put(request.url),
        };
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(secret) = self.options.secret.as_ref().filter(|_| request.is_signed) {
            builder = builder.header(secret.header, format!("{}{}", secret.before, secret.key));
        }
        match request.body {
            Body::Bytes(bytes) => builder.send(bytes),
            Body::File(path, from, length) => {
                use std::io::{Read, Seek, SeekFrom};
                let mut file = std::fs::File::open(path).map_err(ureq::Error::Io)?;
                file.seek(SeekFrom::Start(from)).map_err(ureq::Error::Io)?;
                let mut part = Stoppable { file: file.take(length), is_interrupted };
                let body = ureq::SendBody::from_reader(&mut part);
                // However large it is, as long as it gets on.
                let config = builder.config().timeout_global(None).timeout_per_write(Some(STALL));
                let builder = config.timeout_recv_response(Some(self.options.timeout)).build();
                builder.header("content-length", length.to_string()).send(body)
            }
        }
    }

    /// The beginning of what a service said, in a line.
    pub fn beginning(&self, text: &str) -> String {
        let said: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.without_secret(&said);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    fn without_secret(&self, text: &str) -> String {
        match &self.options.secret {
            Some(secret) if !secret.key.is_empty() => text.replace(secret.key.as_str(), "(key)"),
            _ => text.to_owned(),
        }
    }
}

/// A part of a file, until a signal asks for the end.
struct Stoppable<'a> {
    file: std::io::Take<std::fs::File>,
    is_interrupted: &'a (dyn Fn() -> bool + Sync),
}

impl std::io::Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if (self.is_interrupted)() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.file.read(buffer)
    }
}

/// An address without what may prove who asks.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a status says that the same may be answered later.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

fn pause(length: Duration, is_interrupted: &(dyn Fn() -> bool + Sync)) -> Result<(), HttpError> {
    let began = Instant::now();
    while began.elapsed() < length {
        if is_interrupted() {
            return Err(HttpError::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(100).min(length));
    }
    Ok(())
}
