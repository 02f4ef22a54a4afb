//! Requests to the hub, again where they fail, and the cache that they fill.
//!
//! hf-hub knows the hub's addresses, the form of its listing and the layout of the cache. The requests are made here:
//! those of hf-hub 0.5 wait for ever, carry the token to whatever host the hub redirects to, and take whatever comes
//! for the rest of the file.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ureq::Body;
use ureq::http::{HeaderMap, Response, Uri, header};

use super::cache::{create_parent, io};
use super::{Hub, HubError, Missing, Target, is_word};

/// A failure of one attempt.
pub(super) enum Failure {
    /// The next attempt may succeed.
    Passing { cause: String, wait: Option<Duration>, received: u64 },
    /// It will not.
    Lasting(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Lasting(error)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    /// What the hub knows of a file: HEAD, up to the host that has its bytes.
    Description,
    /// Its bytes from this one on.
    Bytes(u64),
}

struct Reply {
    response: Response<Body>,
    /// Another host, that has the bytes.
    to: Option<Uri>,
}

/// What the hub says of a file before sending it.
struct Description {
    commit: String,
    /// A hash of the contents.
    etag: String,
    size: Option<u64>,
    address: Uri,
}

const COMMIT: &str = "x-repo-commit";
const REDIRECTS: usize = 10;
const LONGEST_LISTING: u64 = 256 << 20;
const LONGEST_DELAY: Duration = Duration::from_mins(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Bytes after which failures are counted anew.
const PROGRESS: u64 = 1 << 20;

impl Hub {
    /// Makes attempts until one succeeds, fails for good, or is the last.
    pub(super) fn retry<T>(
        &self,
        target: &Target<'_>,
        attempt: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let what = &target.what;
        let (mut made, mut failed) = (0, 0);
        loop {
            let (cause, wait, received) = match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing { cause, wait, received }) => (cause, wait, received),
            };
            made += 1;
            failed = if received >= PROGRESS { 1 } else { failed + 1 };
            if failed >= self.options.attempts {
                let (what, cache) = (what.clone(), self.options.cache.clone());
                return Err(HubError::Network { what, attempts: made, cause, cache });
            }
            let doubled = self.options.first_delay.saturating_mul(1 << (failed - 1).min(20));
            // Jobs that start together must not come back together.
            let jitter = 1.0 + (RandomState::new().hash_one(made) % 1000) as f64 / 4000.0;
            let delay = doubled.min(LONGEST_DELAY).mul_f64(jitter);
            let delay = delay.max(wait.unwrap_or_default().min(LONGEST_WAIT));
            let of = self.options.attempts;
            tracing::warn!("{what}: {cause}; attempt {} of {of} in {delay:.1?}", failed + 1);
            std::thread::sleep(delay);
        }
    }

    /// The JSON that lists a repository.
    pub(super) fn listing(&self, target: &Target<'_>) -> Result<Vec<u8>, Failure> {
        let address = self.address(target, &format!("api/{}", target.repo.api_url()))?;
        let reply = self.send(target, address, Ask::Bytes(0))?;
        let body = reply.response.into_body().into_with_config().limit(LONGEST_LISTING);
        body.read_to_vec().map_err(|error| self.failure(error, target, 0))
    }

    /// Brings a file into the cache; what has come of it stays there if the connection breaks.
    pub(super) fn download(&self, target: &Target<'_>) -> Result<PathBuf, Failure> {
        let described = self.describe(target)?;
        let blob = self.cache.repo(target.repo.clone()).blob_path(&described.etag);
        create_parent(&blob)?;
        let lock = self.lock(target, &described.etag)?;
        let is_whole = fs::metadata(&blob)
            .is_ok_and(|found| described.size.is_none_or(|size| size == found.len()));
        if !is_whole {
            // A name of its own: other clients' partial files may have holes.
            let part = blob.with_file_name(format!("{}.sae-part", described.etag));
            self.fill(target, &described, &part)?;
            fs::rename(&part, &blob).map_err(io("move the download to", &blob))?;
        }
        let pointer = self.point(target, &described.commit, &blob)?;
        self.note_commit(target, &described.commit)?;
        drop(lock);
        Ok(pointer)
    }

    fn describe(&self, target: &Target<'_>) -> Result<Description, Failure> {
        let address = self.file_address(target, &target.repo.url_revision())?;
        let Reply { response, to } = self.send(target, address, Ask::Description)?;
        let headers = response.headers();
        let hash = |names: &[&'static str]| {
            let value = names.iter().find_map(|name| text(headers, name));
            let word = value.map(|value| value.trim_start_matches("W/").trim_matches('"'));
            word.filter(|word| is_word(word)).map(str::to_owned).ok_or_else(|| {
                self.bad_reply(target, format!("the header {} is {value:?}", names.join(" or ")))
            })
        };
        let commit = hash(&[COMMIT])?;
        let etag = hash(&["x-linked-etag", "etag"])?;
        let size = number(headers, "x-linked-size");
        // The length of a redirect is that of its own text.
        let length = || number(headers, "content-length").filter(|_| to.is_none());
        let size = size.or_else(length);
        // By commit, because a branch may move between two attempts.
        let address = to.map_or_else(|| self.file_address(target, &commit), Ok)?;
        Ok(Description { commit, etag, size, address })
    }

    /// Appends to the partial file what it lacks.
    fn fill(
        &self,
        target: &Target<'_>,
        described: &Description,
        part: &Path,
    ) -> Result<(), Failure> {
        let write = io("write", part);
        let mut file = File::options().create(true).append(true).open(part).map_err(&write)?;
        let mut start = file.metadata().map_err(&write)?.len();
        if described.size.is_some_and(|size| start > size) {
            file.set_len(0).map_err(&write)?;
            start = 0;
        }
        if described.size != Some(start) {
            let reply = self.send(target, described.address.clone(), Ask::Bytes(start))?.response;
            let range = text(reply.headers(), "content-range").unwrap_or_default();
            let announced = match reply.status().as_u16() {
                206 if range.starts_with(&format!("bytes {start}-")) => {
                    range.rsplit('/').next().and_then(|total| total.parse().ok())
                }
                206 => Err(self.bad_reply(target, format!("bytes {range:?} came for {start}-")))?,
                status => {
                    file.set_len(0).map_err(&write)?;
                    start = 0;
                    if status == 416 {
                        return Err(passing("the hub has no bytes after those already there"));
                    }
                    number(reply.headers(), "content-length")
                }
            };
            if let (Some(size), Some(announced)) = (described.size, announced)
                && size != announced
            {
                return Err(passing(format!("{announced} bytes were to come of a file of {size}")));
            }
            let size = described.size.or(announced);
            let received = self.receive(target, reply, &mut file, start, size)?;
            let length = start + received;
            if let Some(size) = size.filter(|&size| length > size) {
                file.set_len(0).map_err(&write)?;
                return Err(passing(format!("more came than the file's {size} bytes")));
            }
            if let Some(size) = size.filter(|&size| length < size) {
                let cause = format!("{length} of {size} bytes came");
                return Err(Failure::Passing { cause, wait: None, received });
            }
        }
        file.sync_all().map_err(|error| write(error).into())
    }

    /// Writes the body at the end of the file and counts its bytes, of which one too many is enough.
    fn receive(
        &self,
        target: &Target<'_>,
        reply: Response<Body>,
        file: &mut File,
        start: u64,
        size: Option<u64>,
    ) -> Result<u64, Failure> {
        let what = &target.what;
        let (from, of) = (mebibytes(start), size.map_or("?".to_owned(), mebibytes));
        tracing::info!("downloading {what}: {from} of {of}");
        let limit = size.unwrap_or(u64::MAX).saturating_sub(start).saturating_add(1);
        let mut reader = reply.into_body().into_reader().take(limit);
        let mut buffer = vec![0; 1 << 17];
        let began = Instant::now();
        let (mut received, mut reported) = (0, began);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(received),
                Ok(count) => count,
                Err(error) => return Err(self.failure(error.into(), target, received)),
            };
            if let Err(source) = file.write_all(&buffer[..count]) {
                let path = self.options.cache.clone();
                return Err(HubError::Io { action: "write to the cache", path, source }.into());
            }
            received += count as u64;
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                let done = start + received;
                let rate = received as f64 / began.elapsed().as_secs_f64();
                let left = size.map_or(String::new(), |size| {
                    format!(", {:.0} s left", size.saturating_sub(done) as f64 / rate)
                });
                let rate = mebibytes(rate as u64);
                tracing::info!("downloading {what}: {} of {of}, {rate}/s{left}", mebibytes(done));
            }
        }
    }

    /// Sends a request and follows its redirects, with the token as long as they stay at the endpoint.
    fn send(&self, target: &Target<'_>, address: Uri, ask: Ask) -> Result<Reply, Failure> {
        let mut from = address;
        let mut trusted = true;
        for _ in 0..=REDIRECTS {
            trusted &= is_same_host(&from, &self.endpoint);
            let request = match ask {
                Ask::Description => self.agent.head(&from),
                Ask::Bytes(_) => self.agent.get(&from),
            };
            // Compressed, lengths and ranges would mean something else.
            let mut request = request.header(header::ACCEPT_ENCODING, "identity");
            if let (Some(authorization), true) = (&self.authorization, trusted) {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            if let Ask::Bytes(start @ 1..) = ask {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| self.failure(error, target, 0))?;
            if !response.status().is_redirection() {
                self.check(target, &response, ask, trusted)?;
                return Ok(Reply { response, to: None });
            }
            let Some(to) = redirected(&from, response.headers()) else {
                let location = response.headers().get(header::LOCATION);
                return Err(self.bad_reply(target, format!("a redirect to {location:?} came")))?;
            };
            let is_described = ask == Ask::Description && response.headers().contains_key(COMMIT);
            if is_described && !is_same_host(&to, &self.endpoint) {
                return Ok(Reply { response, to: Some(to) });
            }
            from = to;
        }
        Err(self.bad_reply(target, format!("more than {REDIRECTS} redirects came")))?
    }

    fn check(
        &self,
        target: &Target<'_>,
        response: &Response<Body>,
        ask: Ask,
        trusted: bool,
    ) -> Result<(), Failure> {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let what = target.what.clone();
        let code = text(headers, "x-error-code").unwrap_or_default();
        let reason = text(headers, "x-error-message").unwrap_or(code);
        let reason = reason.get(..200).unwrap_or(reason);
        let reason = if reason.is_empty() { String::new() } else { format!(", {reason}") };
        match status {
            200..=299 => Ok(()),
            416 if matches!(ask, Ask::Bytes(1..)) => Ok(()),
            408 | 425 | 429 | 500..=599 => {
                let cause = format!("HTTP {status}{reason}");
                Err(Failure::Passing {
                    cause,
                    wait: retry_after(headers, SystemTime::now()),
                    received: 0,
                })
            }
            // An address signed for a while may have run out, and the next attempt is given a new one.
            _ if !trusted => {
                Err(passing(format!("HTTP {status} from the host that has the bytes")))
            }
            401 | 403 => {
                let advice = match &self.authorization {
                    None => "no token was sent: set HF_TOKEN to one that may read it".to_owned(),
                    Some(_) => format!(
                        "the token sent (HF_TOKEN) is invalid or may not read it: check it, and whether {}/{} asks for \
                         conditions to be accepted",
                        self.options.endpoint,
                        target.repo.url()
                    ),
                };
                Err(HubError::Refused { what, status, reason, advice }.into())
            }
            404 | 410 => {
                let missing = match code {
                    "RepoNotFound" => Missing::Repository,
                    "RevisionNotFound" => Missing::Revision,
                    "EntryNotFound" => Missing::File,
                    _ => Missing::Unknown,
                };
                Err(HubError::NotFound { what, missing }.into())
            }
            _ => Err(self.bad_reply(target, format!("HTTP {status}{reason} came")).into()),
        }
    }

    /// Whether a request that got no answer, or half of one, is worth another.
    fn failure(&self, error: ureq::Error, target: &Target<'_>, received: u64) -> Failure {
        use ureq::Error as E;
        let cause = match error {
            E::Timeout(_) => format!("nothing came for {:?}", self.options.stall),
            E::HostNotFound => "the host's name cannot be resolved".to_owned(),
            // A certificate, for one, does not become valid by waiting.
            E::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => error.to_string(),
            E::ConnectionFailed | E::Protocol(_) | E::ConnectProxyFailed(_) => error.to_string(),
            _ => return self.bad_reply(target, format!("the request failed ({error})")).into(),
        };
        Failure::Passing { cause, wait: None, received }
    }

    pub(super) fn bad_reply(&self, target: &Target<'_>, found: String) -> HubError {
        let endpoint = self.options.endpoint.clone();
        HubError::Reply { what: target.what.clone(), found, endpoint }
    }

    fn file_address(&self, target: &Target<'_>, revision: &str) -> Result<Uri, HubError> {
        let file = encode(target.file.unwrap_or_default());
        let repository = target.repo.url();
        self.address(target, &format!("{repository}/resolve/{revision}/{file}"))
    }

    fn address(&self, target: &Target<'_>, path: &str) -> Result<Uri, HubError> {
        let address = format!("{}/{path}", self.options.endpoint);
        address.parse().map_err(|_| self.bad_reply(target, format!("{address} is no address")))
    }
}

fn passing(cause: impl Into<String>) -> Failure {
    Failure::Passing { cause: cause.into(), wait: None, received: 0 }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

fn is_same_host(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

/// Where a redirect leads; never from https to http.
fn redirected(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let to: Uri = text(headers, "location")?.parse().ok()?;
    match (to.scheme_str(), to.authority()) {
        (None, None) => {
            let parts =
                Uri::builder().scheme(from.scheme_str()?).authority(from.authority()?.clone());
            parts.path_and_query(to.path_and_query()?.clone()).build().ok()
        }
        (Some("https"), Some(_)) => Some(to),
        (Some("http"), Some(_)) if from.scheme_str() == Some("http") => Some(to),
        _ => None,
    }
}

/// How long the hub asks to wait: Retry-After in seconds or as a date (RFC 9110, 10.2.3), or the `t` of its RateLimit.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(value) = text(headers, "retry-after") {
        let seconds = value.trim().parse().ok().map(Duration::from_secs);
        return seconds.or_else(|| (UNIX_EPOCH + date(value)?).duration_since(now).ok());
    }
    let reset =
        text(headers, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
    reset?.parse().ok().map(Duration::from_secs)
}

/// Time since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<Duration> {
    let parts: Vec<&str> = text.split([' ', ':']).filter(|part| !part.is_empty()).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let number = |part: &str, most: u64| part.parse::<u64>().ok().filter(|&number| number <= most);
    let month =
        "JanFebMarAprMayJunJulAugSepOctNovDec".find(month).filter(|_| month.len() == 3)? as u64 / 3;
    let year = number(year, 9999).filter(|&year| year >= 1970)?;
    // Years from March on, so that the day of a leap year is the last one.
    let (months, years) = ((month + 10) % 12, year - u64::from(month < 2));
    let days = years * 365 + years / 4 - years / 100
        + years / 400
        + (months * 153 + 2) / 5
        + number(day, 31)?;
    let days = days.checked_sub(719_469)?;
    let seconds = number(hour, 23)? * 3600 + number(minute, 59)? * 60 + number(second, 60)?;
    Some(Duration::from_secs(days * 86_400 + seconds))
}

fn encode(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    path.bytes()
        .map(|byte| match char::from(byte) {
            c if plain(c) => c.to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
