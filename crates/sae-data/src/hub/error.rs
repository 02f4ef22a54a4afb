//! What can go wrong between the hub and the cache.

use std::path::PathBuf;

/// What it is that the hub does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The repository.
    Repository,
    /// The branch, tag or commit.
    Revision,
    /// The file.
    File,
    /// One of these; the server did not say which.
    Unknown,
}

/// A file or listing that could not be had. Every message names it and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A setting or an argument is not what it has to be.
    #[error("{name} is {found}, expected {expected}")]
    Invalid {
        /// The setting, with the variable that sets it.
        name: &'static str,
        /// Its value, or what is wrong with it.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The repository has several of what one is needed of.
    #[error("{repository} has several {what}: {found}; {remedy}")]
    Ambiguous {
        /// The repository at its revision.
        repository: String,
        /// Splits, or configurations.
        what: &'static str,
        /// Their names.
        found: String,
        /// How to choose.
        remedy: &'static str,
    },
    /// Without a token, or with this one, the hub keeps it to itself.
    #[error(
        "the hub refuses {what} (HTTP {status}{reason}): it is private, gated or misspelt, and {advice}"
    )]
    Refused {
        /// File, repository and revision.
        what: String,
        /// 401 or 403.
        status: u16,
        /// What the hub says beside it.
        reason: String,
        /// What to do about the token.
        advice: String,
    },
    /// The hub does not have it.
    #[error("cannot fetch {what}: HTTP 404, {}", advice(*missing))]
    NotFound {
        /// File, repository and revision.
        what: String,
        /// Which of them is not there.
        missing: Missing,
    },
    /// The hub could not be reached, or broke off, once too often.
    #[error(
        "cannot fetch {what}: tried {attempts} times, lastly {cause}; the same command goes on from the bytes already \
         in the cache {}, and HF_HUB_OFFLINE=1 makes do with what it holds", cache.display()
    )]
    Network {
        /// File, repository and revision.
        what: String,
        /// Requests made.
        attempts: u32,
        /// Why the last one failed.
        cause: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The hub answered something that makes no sense.
    #[error("cannot fetch {what}: {found}; is {endpoint} (HF_ENDPOINT) a Hugging Face hub?")]
    Reply {
        /// File, repository and revision.
        what: String,
        /// What is wrong with the answer.
        found: String,
        /// The hub's address.
        endpoint: String,
    },
    /// Offline, and not in the cache.
    #[error(
        "{what} is not in the cache {}: run once with the network (unset HF_HUB_OFFLINE), or set HF_HUB_CACHE to the \
         folder that has it", cache.display()
    )]
    NotCached {
        /// File, repository and revision.
        what: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// Offline, and the contents in the cache are not those that their name promises.
    #[error(
        "{what} is damaged in the cache: {} has the SHA-256 {found}, expected {expected}, which is its name; run once \
         with the network (unset HF_HUB_OFFLINE), which fetches it again, or delete that file", path.display()
    )]
    Damaged {
        /// File, repository and revision.
        what: String,
        /// The file in the cache.
        path: PathBuf,
        /// The SHA-256 that names it.
        expected: String,
        /// The SHA-256 of its contents.
        found: String,
    },
    /// A data set has no parquet file of the kind asked for.
    #[error(
        "{repository} has no parquet file{wanted}: it has {found}; choose among these, or another data set"
    )]
    NoMatch {
        /// The data set and its revision.
        repository: String,
        /// The split or pattern.
        wanted: String,
        /// Splits or files that there are.
        found: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn advice(missing: Missing) -> &'static str {
    match missing {
        Missing::Repository => "the hub has no such repository; check its name",
        Missing::Revision => "the repository has no such revision; check the branch, tag or commit",
        Missing::File => "the repository has no such file at this revision; check its name",
        Missing::Unknown => {
            "the hub does not say what is missing; check repository, revision and file"
        }
    }
}
