//! Requests to the hub, again where they fail, and the cache that they fill.
//!
//! hf-hub knows the hub's addresses, the form of its listing and the layout of the cache. The requests are made here:
//! those of hf-hub 0.5 wait for ever, carry the token to whatever host the hub redirects to, and take whatever comes
//! for the rest of the file.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{Response, Uri};

use super::cache::{create_parent, io};
use super::part::{Part, Writer};
use super::request::{Ask, COMMIT, Failure, Reply, number, passing, text};
use super::verify::{Contents, check_part};
use super::{Hub, HubError, Target, is_word};

/// What the hub says of a file before sending it.
struct Description {
    commit: String,
    /// A hash of the contents.
    etag: String,
    size: Option<u64>,
    address: Uri,
}

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
        let (mut made, mut failed, mut mismatched) = (0, 0, 0);
        loop {
            let (cause, wait, received) = match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing { cause, wait, received }) => (cause, wait, received),
                Err(Failure::Mismatch { cause }) => {
                    mismatched += 1;
                    (cause, None, 0)
                }
            };
            made += 1;
            failed = if received >= PROGRESS { 1 } else { failed + 1 };
            // Of a file that the hub holds damaged, all bytes come each time.
            if failed.max(mismatched) >= self.options.attempts {
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
    pub(super) fn download(
        &self,
        target: &Target<'_>,
        writer: &Writer,
    ) -> Result<PathBuf, Failure> {
        let described = self.describe(target)?;
        let Description { commit, etag, size, .. } = &described;
        let blob = self.cache.repo(target.repo.clone()).blob_path(etag);
        create_parent(&blob)?;
        let lock = self.lock(target, etag)?;
        if !self.is_whole(target, &blob, &described) {
            let mut part = writer.claim(&blob, lock.is_held, *size)?;
            self.fill(target, &described, &mut part)?;
            let checked = check_part(target, &part, etag, *size)?;
            fs::rename(&part.path, &blob).map_err(io("move the download to", &blob))?;
            self.keep_verified(target, etag, &checked);
        }
        writer.remove_leftovers(&blob, lock.is_held);
        let pointer = self.point(target, commit, &blob)?;
        self.note_commit(target, commit)?;
        drop(lock);
        Ok(pointer)
    }

    /// Whether the blob is there and is what the hub describes; one that cannot be read is fetched again.
    fn is_whole(&self, target: &Target<'_>, blob: &Path, described: &Description) -> bool {
        let has_size = fs::metadata(blob)
            .is_ok_and(|found| described.size.is_none_or(|size| size == found.len()));
        has_size && matches!(self.inspect(target, blob, &described.etag), Ok(Contents::Right))
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
        part: &mut Part,
    ) -> Result<(), Failure> {
        let write = io("write", &part.path);
        let file = &mut part.file;
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
            let received = self.receive(target, reply, file, start, size)?;
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
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
