//! The parquet files of a data set on the hub: which of its files they are, and of which split.

use super::{Hub, HubError, Repository};

/// Where Hugging Face keeps its conversion of data sets that are in other formats.
const CONVERTED: &str = "refs/convert/parquet";
/// Names of splits that files are known by.
const SPLITS: [&str; 7] = ["train", "validation", "valid", "val", "dev", "test", "eval"];

impl Hub {
    /// The parquet files of a data set, sorted, and the repository at the revision that has them: `revision`, or
    /// `main`, or where `main` has none, the hub's own conversion. `pattern` keeps those whose path or name the glob
    /// matches, `split` those that [`in_split`] holds for. Where no file names a split, all are `train`.
    pub fn parquet_files(
        &self,
        name: &str,
        revision: Option<&str>,
        split: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<(Repository, Vec<String>), HubError> {
        let glob = pattern.map(glob::Pattern::new).transpose().map_err(|_| HubError::Invalid {
            name: "the pattern of file names",
            found: format!("`{}`", pattern.unwrap_or_default()),
            expected: "a glob such as data/train-*.parquet",
        })?;
        let mut repository = Repository::dataset(name);
        repository.revision = revision.map(str::to_owned);
        let mut files = match self.files(&repository) {
            Err(HubError::NotCached { .. }) if revision.is_none() => Vec::new(),
            files => files?,
        };
        let is_parquet = |file: &String| file.ends_with(".parquet");
        if revision.is_none() && !files.iter().any(is_parquet) {
            let converted = repository.clone().at(CONVERTED);
            match self.files(&converted) {
                Err(HubError::NotFound { .. }) => {}
                found => (repository, files) = (converted, found?),
            }
        }
        files = keep(&repository, &files, "", |file| file.ends_with(".parquet"))?;
        if let Some(glob) = glob {
            let name = |file: &str| glob.matches(file.rsplit('/').next().unwrap_or(file));
            files = keep(&repository, &files, &format!(" that matches `{glob}`"), |file| {
                glob.matches(file) || name(file)
            })?;
        }
        if let Some(split) = split
            && (split != "train" || !splits(&files).is_empty())
        {
            let wanted = format!(" of the split `{split}`");
            files = keep(&repository, &files, &wanted, |file| in_split(file, split))?;
        }
        if pattern.is_none() {
            one_of_each(&repository, &files, split)?;
        }
        files.sort();
        Ok((repository, files))
    }
}

/// Whether a file belongs to a split, as Hugging Face names them: `train-00000-of-00010.parquet`, `data/train-…`,
/// `default/train/0000.parquet`, `default/partial-train/…`. The split's name stands between two of: the path's ends,
/// `/`, `-`, `_`, `.`, a space, a digit.
pub fn in_split(path: &str, split: &str) -> bool {
    let ends = |c: char| matches!(c, '/' | '-' | '_' | '.' | ' ' | '0'..='9');
    !split.is_empty()
        && path.match_indices(split).any(|(start, _)| {
            path[..start].chars().next_back().is_none_or(ends)
                && path[start + split.len()..].chars().next().is_none_or(ends)
        })
}

/// The usual names of splits that occur in files' names.
pub(crate) fn splits(files: &[String]) -> Vec<&'static str> {
    SPLITS.into_iter().filter(|split| files.iter().any(|file| in_split(file, split))).collect()
}

/// Refuses files of several configurations, or of several splits where none was asked for: read one after the other they
/// would be a mixture that nobody meant. A configuration is what the folders are called beside the split.
fn one_of_each(
    repository: &Repository,
    files: &[String],
    split: Option<&str>,
) -> Result<(), HubError> {
    let found = splits(files);
    if split.is_none() && found.len() > 1 {
        return Err(HubError::Ambiguous {
            repository: repository.to_string(),
            what: "splits",
            found: found.join(", "),
            remedy: "name one: data.split, eval.split, --split",
        });
    }
    let words: Vec<&str> = SPLITS.into_iter().chain(split).collect();
    let configuration = |file: &String| -> String {
        let folders = file.rsplit_once('/').map_or("", |(folders, _)| folders).split('/');
        let own = folders.filter(|folder| !words.iter().any(|word| in_split(folder, word)));
        own.collect::<Vec<_>>().join("/")
    };
    let mut found: Vec<String> = files.iter().map(configuration).collect();
    found.sort();
    found.dedup();
    if found.len() > 1 {
        return Err(HubError::Ambiguous {
            repository: repository.to_string(),
            what: "configurations",
            found: found.join(", "),
            remedy: "choose one by its files: hf://owner/name/<configuration>/**/*.parquet",
        });
    }
    Ok(())
}

fn keep(
    repository: &Repository,
    files: &[String],
    wanted: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<String>, HubError> {
    let kept: Vec<String> = files.iter().filter(|file| is_wanted(file)).cloned().collect();
    if !kept.is_empty() {
        return Ok(kept);
    }
    let (repository, wanted) = (repository.to_string(), wanted.to_owned());
    let (names, splits) = (files[..files.len().min(8)].join(", "), splits(files).join(", "));
    let more = files.len().saturating_sub(8);
    let found = match (files, more, &*splits) {
        ([], ..) => "none at all".to_owned(),
        (_, 0, "") => names,
        (_, more, "") => format!("{names} and {more} more"),
        _ => format!("the splits {splits} (in {names})"),
    };
    Err(HubError::NoMatch { repository, wanted, found })
}
