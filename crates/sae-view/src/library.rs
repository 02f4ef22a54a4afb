//! The dictionaries that are shown: their cards in memory, their examples where they lie.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sae_analysis::dashboards::{Card, Limits, Listing, Row};
use sae_config::Site;
use sae_record::dashboard::{Dashboard, Gathered};
use sae_train::RunSpec;
use serde::Serialize;

use crate::ViewError;

/// Cards whose examples are searched together.
const SEARCHED: usize = 256;
/// The most features that a search for text finds.
const MOST_FOUND: usize = 2_000;

/// The dictionaries of finished runs.
#[derive(Debug)]
pub struct Library {
    /// The folder that was opened.
    folder: PathBuf,
    runs: Vec<RunSpec>,
    dictionaries: Vec<Dictionary>,
}

/// A dictionary with a dashboard.
#[derive(Debug)]
struct Dictionary {
    /// The place of its run.
    run: usize,
    group: String,
    site: Site,
    gathered: Gathered,
    /// Read when it is first asked for.
    dashboard: OnceLock<Dashboard>,
}

/// A dictionary in the list of all, without its features.
#[derive(Debug, Serialize)]
pub struct Shelf {
    #[serde(flatten)]
    listing: Listing,
    /// Its number in requests.
    dictionary: usize,
}

/// What a search for text has found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The features.
    pub features: Vec<u32>,
    /// The last feature that was looked at; none where all were. A search ends early where it has found 2 000.
    pub up_to: Option<u32>,
}

impl Library {
    /// The dictionaries of these runs, each with the name of its group, that have dashboards.
    pub fn open(folder: &Path, runs: Vec<(RunSpec, String)>) -> Result<Self, ViewError> {
        let mut dictionaries = Vec::new();
        for (place, (run, group)) in runs.iter().enumerate() {
            for site in &run.config.sae.sites {
                if let Some(gathered) = Gathered::load(&run.folder.dashboard(*site))? {
                    dictionaries.push(Dictionary {
                        run: place,
                        group: group.clone(),
                        site: *site,
                        gathered,
                        dashboard: OnceLock::new(),
                    });
                }
            }
        }
        if dictionaries.is_empty() {
            return Err(ViewError::NoDashboards { folder: folder.to_owned() });
        }
        let runs = runs.into_iter().map(|(run, _)| run).collect();
        Ok(Self { folder: folder.to_owned(), runs, dictionaries })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The runs.
    pub fn runs(&self) -> &[RunSpec] {
        &self.runs
    }

    /// The run of this id.
    pub fn run(&self, id: &str) -> Result<&RunSpec, ViewError> {
        let found = self.runs.iter().find(|run| run.id == id);
        found.ok_or_else(|| ViewError::Request(format!("there is no run {id}")))
    }

    /// All dictionaries, without their features.
    pub fn shelves(&self) -> Vec<Shelf> {
        let shelf = |(place, dictionary): (usize, &Dictionary)| Shelf {
            listing: Listing {
                run: self.runs[dictionary.run].id.clone(),
                group: dictionary.group.clone(),
                site: dictionary.site,
                tokens: dictionary.gathered.tokens,
                of: dictionary.gathered.n_features,
                features: Vec::new(),
                cards: Vec::new(),
            },
            dictionary: place,
        };
        self.dictionaries.iter().enumerate().map(shelf).collect()
    }

    /// The features of a dictionary.
    pub fn rows(&self, dictionary: usize) -> Result<Vec<Row>, ViewError> {
        let dashboard = self.dashboard(dictionary)?;
        Ok(dashboard.cards.iter().map(|card| Row::of(dashboard, card)).collect())
    }

    /// The card of a feature; none where it was never active.
    pub fn card(&self, dictionary: usize, feature: u32) -> Result<Option<Card>, ViewError> {
        let dashboard = self.dashboard(dictionary)?;
        let Some(card) = dashboard.card(feature) else { return Ok(None) };
        let examples = dashboard.examples(card)?;
        Ok(Some(Card::of(dashboard, card, &examples, Limits::NONE)))
    }

    /// The features with an example that holds a text, whatever its case.
    pub fn search(&self, dictionary: usize, text: &str) -> Result<Found, ViewError> {
        let dashboard = self.dashboard(dictionary)?;
        let wanted = text.to_lowercase();
        let mut found = Found { features: Vec::new(), up_to: None };
        for cards in dashboard.cards.chunks(SEARCHED) {
            let cards: Vec<_> = cards.iter().collect();
            for (card, examples) in cards.iter().zip(dashboard.examples_of(&cards)?) {
                let holds = examples.iter().any(|example| {
                    let text: String =
                        example.tokens.iter().map(|token| dashboard.text(*token)).collect();
                    text.to_lowercase().contains(&wanted)
                });
                if holds {
                    found.features.push(card.feature);
                }
            }
            let (at, last) = (cards.last(), dashboard.cards.last());
            if found.features.len() >= MOST_FOUND && at.copied() != last {
                found.up_to = at.map(|card| card.feature);
                break;
            }
        }
        Ok(found)
    }

    fn dashboard(&self, dictionary: usize) -> Result<&Dashboard, ViewError> {
        let found = self.dictionaries.get(dictionary);
        let found = found
            .ok_or_else(|| ViewError::Request(format!("there is no dictionary {dictionary}")))?;
        if let Some(dashboard) = found.dashboard.get() {
            return Ok(dashboard);
        }
        let folder = self.runs[found.run].folder.dashboard(found.site);
        let dashboard = Dashboard::load(&folder)?
            .ok_or_else(|| ViewError::Request(format!("{} has gone", folder.display())))?;
        Ok(found.dashboard.get_or_init(|| dashboard))
    }
}
