//! Where a configuration's sources lie on this machine: paths as they are, repositories of the hub fetched into its cache.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sae_config::{HubSource, PretrainConfig, RunConfig, Source};
use sae_data::hub::{Hub, HubError, Repository, RepositoryKind};
use sae_data::{DataError, ShardSet};

use crate::TrainError;

/// Brings sources to this machine. The hub's settings are read from the environment when it is first needed.
#[derive(Debug, Default)]
pub struct Sources {
    hub: OnceCell<Hub>,
    /// The commits that requests have been pinned to: every run of a sweep reads the same one.
    pinned: RefCell<HashMap<Request, Option<String>>>,
}

/// A source that is asked for, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    source: HubSource,
    role: Role,
}

/// What a repository is asked for as: it decides which of its revisions is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
    Model,
    Data { split: Option<String> },
}

/// Weights of a model, in the order in which they are looked for: a file, or an index and the pattern of its shards.
const WEIGHTS: [(&str, &str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json", ".safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", ".bin"),
];
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

impl Sources {
    /// With a hub of these settings, instead of the environment's.
    pub fn with_hub(hub: Hub) -> Self {
        Self { hub: OnceCell::from(hub), pinned: RefCell::default() }
    }

    fn hub(&self) -> Result<&Hub, HubError> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        let hub = Hub::from_env()?;
        Ok(self.hub.get_or_init(|| hub))
    }

    /// Parquet files.
    pub fn shards(
        &self,
        source: &Source,
        column: &str,
        split: Option<&str>,
    ) -> Result<ShardSet, DataError> {
        match source {
            Source::Local(path) => ShardSet::open_split(path, column, split),
            Source::Hub(set) => ShardSet::open_hub(set, column, split, self.hub()?),
        }
    }

    /// A model's folder, or its checkpoint `.pt`: configuration, weights and, where there is one, tokeniser.
    pub fn model(&self, source: &Source) -> Result<PathBuf, TrainError> {
        let Source::Hub(source) = source else { return Ok(local(source)) };
        if source.path.is_some() {
            return self.checkpoint(source);
        }
        let (hub, repository) = (self.hub()?, repository(source));
        let files = hub.files(&repository)?;
        let mut wanted = vec!["config.json"];
        wanted.extend(TOKENIZER.iter().filter(|name| files.iter().any(|file| file == **name)));
        let has = |name: &str| files.iter().any(|file| file == name);
        let (whole, index, extension) = WEIGHTS
            .into_iter()
            .find(|(whole, index, _)| has(whole) || has(index))
            .ok_or_else(|| TrainError::Source {
                found: source.to_string(),
                expected: format!(
                    "a model with model.safetensors or pytorch_model.bin, whole or sharded; it has {}",
                    files.join(", ")
                ),
            })?;
        if has(whole) {
            wanted.push(whole);
        } else {
            wanted.push(index);
            let stem = whole.trim_end_matches(extension);
            wanted.extend(files.iter().map(String::as_str).filter(|file| {
                file.strip_prefix(stem)
                    .is_some_and(|rest| rest.starts_with('-') && rest.ends_with(extension))
            }));
        }
        folder_of(hub, &repository, &wanted)
    }

    /// A model's folder as far as its hyper-parameters need it.
    pub fn model_config(&self, source: &Source) -> Result<PathBuf, TrainError> {
        match source {
            Source::Hub(hub) if hub.path.is_none() => {
                folder_of(self.hub()?, &repository(hub), &["config.json"])
            }
            _ => self.model(source),
        }
    }

    /// A tokeniser's folder or file.
    pub fn tokenizer(&self, source: &Source) -> Result<PathBuf, TrainError> {
        let Source::Hub(source) = source else { return Ok(local(source)) };
        let (hub, repository) = (self.hub()?, repository(source));
        let file = hub.try_get(&repository, TOKENIZER[0])?.ok_or_else(|| TrainError::Source {
            found: source.to_string(),
            expected: "a repository with tokenizer.json; set data.tokenizer to one that has it"
                .to_owned(),
        })?;
        hub.try_get(&repository, TOKENIZER[1])?;
        Ok(file)
    }

    /// An SAE's folder, a run's folder, or a `.pt` of the reference.
    pub fn sae(&self, source: &Source) -> Result<PathBuf, TrainError> {
        let Source::Hub(source) = source else { return Ok(local(source)) };
        match source.path.as_deref() {
            Some(path) if has_extension(path, "pt") => self.checkpoint(source),
            path => {
                let prefix = path.map_or(String::new(), |path| format!("{path}/"));
                let names =
                    ["cfg.json", "sae_weights.safetensors"].map(|name| format!("{prefix}{name}"));
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                folder_of(self.hub()?, &repository(source), &names)
            }
        }
    }

    /// Records the commits that branches and tags stand for now, before anything is opened: so a run, and every run that
    /// is pinned by the same `Sources`, reads one commit of each repository, whatever happens there meanwhile, and goes on
    /// and is evaluated with what it began with.
    pub fn pin(&self, config: &mut RunConfig) -> Result<(), TrainError> {
        for source in std::iter::once(&mut config.model.path).chain(&mut config.sae.pretrained) {
            self.pin_one(source, Role::Model, listed)?;
        }
        if let Some(tokenizer) = &mut config.data.tokenizer
            && let Err(error) = self.pin_one(tokenizer, Role::Model, listed)
        {
            // Windows need none; where text does, opening it says the same.
            tracing::debug!("{error}");
        }
        let data = [
            (&mut config.data.train, &config.data.split),
            (&mut config.eval.data, &config.eval.split),
        ];
        for (source, split) in data {
            // The parquet files may be those of the hub's own conversion.
            self.pin_one(source, Role::Data { split: split.clone() }, |hub, source| {
                let (revision, path) = (source.resolved(), source.path.as_deref());
                Ok(hub.parquet_files(&source.repository, revision, split.as_deref(), path)?.0)
            })?;
        }
        Ok(())
    }

    /// The same for a pretraining.
    pub fn pin_pretraining(&self, config: &mut PretrainConfig) -> Result<(), TrainError> {
        let data = &mut config.data;
        self.pin_one(&mut data.tokenizer, Role::Model, listed)?;
        for source in [&mut data.train, &mut data.validation] {
            self.pin_one(source, Role::Data { split: None }, |hub, source| {
                let (revision, path) = (source.resolved(), source.path.as_deref());
                Ok(hub.parquet_files(&source.repository, revision, None, path)?.0)
            })?;
        }
        Ok(())
    }

    fn pin_one(
        &self,
        source: &mut Source,
        role: Role,
        asked: impl FnOnce(&Hub, &HubSource) -> Result<Repository, HubError>,
    ) -> Result<(), TrainError> {
        let Source::Hub(source) = source else { return Ok(()) };
        if source.is_pinned() {
            return Ok(());
        }
        let request = Request { source: source.clone(), role };
        let known = self.pinned.borrow().get(&request).cloned();
        source.commit = if let Some(commit) = known {
            commit
        } else {
            let hub = self.hub()?;
            let commit = hub.commit_of(&asked(hub, source)?)?;
            self.pinned.borrow_mut().insert(request, commit.clone());
            commit
        };
        Ok(())
    }

    /// A `.pt`, and the configuration beside it: `final_config.yaml`, or its own name with `.yaml`.
    fn checkpoint(&self, source: &HubSource) -> Result<PathBuf, TrainError> {
        let (hub, repository) = (self.hub()?, repository(source));
        let name = source.path.as_deref().filter(|path| has_extension(path, "pt"));
        let name = name.ok_or_else(|| TrainError::Source {
            found: source.to_string(),
            expected: "a file ending in .pt, or a repository".to_owned(),
        })?;
        let path = hub.get(&repository, name)?;
        let beside = Path::new(name);
        for config in [beside.with_extension("yaml"), beside.with_file_name("final_config.yaml")] {
            if hub.try_get(&repository, &config.to_string_lossy())?.is_some() {
                break;
            }
        }
        Ok(path)
    }
}

/// Fetches files of a repository into the cache, where those of a commit lie in one folder.
fn folder_of(hub: &Hub, repository: &Repository, names: &[&str]) -> Result<PathBuf, TrainError> {
    let mut last = PathBuf::new();
    for name in names {
        last = hub.get(repository, name)?;
    }
    // The last name may have folders of its own, which all have in common where there are any.
    Ok(last.parent().map(Path::to_owned).unwrap_or_default())
}

fn local(source: &Source) -> PathBuf {
    source.local().map(Path::to_owned).unwrap_or_default()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The repository of a source, listed.
fn listed(hub: &Hub, source: &HubSource) -> Result<Repository, HubError> {
    let repository = repository(source);
    hub.files(&repository).map(|_| repository)
}

fn repository(source: &HubSource) -> Repository {
    Repository {
        kind: RepositoryKind::Model,
        name: source.repository.clone(),
        revision: source.resolved().map(str::to_owned),
    }
}
