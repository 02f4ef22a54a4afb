//! Single requests to the hub: what is sent to whom, which redirects are followed, and what an answer means for the
//! next attempt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Body;
use ureq::http::{HeaderMap, Response, Uri, header};

use super::{Hub, HubError, Missing, Target};

/// A failure of one attempt.
pub(super) enum Failure {
    /// The next attempt may succeed.
    Passing { cause: String, wait: Option<Duration>, received: u64 },
    /// All bytes came and are not those announced. The next attempt may succeed.
    Mismatch { cause: String },
    /// It will not.
    Lasting(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Lasting(error)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ask {
    /// What the hub knows of a file: HEAD, up to the host that has its bytes.
    Description,
    /// Its bytes from this one on.
    Bytes(u64),
}

pub(super) struct Reply {
    pub response: Response<Body>,
    /// Another host, that has the bytes.
    pub to: Option<Uri>,
}

pub(super) const COMMIT: &str = "x-repo-commit";
const REDIRECTS: usize = 10;

impl Hub {
    /// Sends a request and follows its redirects, with the token as long as they stay at the endpoint.
    pub(super) fn send(
        &self,
        target: &Target<'_>,
        address: Uri,
        ask: Ask,
    ) -> Result<Reply, Failure> {
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
    pub(super) fn failure(
        &self,
        error: ureq::Error,
        target: &Target<'_>,
        received: u64,
    ) -> Failure {
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

    pub(super) fn file_address(
        &self,
        target: &Target<'_>,
        revision: &str,
    ) -> Result<Uri, HubError> {
        let file = encode(target.file.unwrap_or_default());
        let repository = target.repo.url();
        self.address(target, &format!("{repository}/resolve/{revision}/{file}"))
    }

    pub(super) fn address(&self, target: &Target<'_>, path: &str) -> Result<Uri, HubError> {
        let address = format!("{}/{path}", self.options.endpoint);
        address.parse().map_err(|_| self.bad_reply(target, format!("{address} is no address")))
    }
}

pub(super) fn passing(cause: impl Into<String>) -> Failure {
    Failure::Passing { cause: cause.into(), wait: None, received: 0 }
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
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
