//! Features one by one: the browser of features on the page, for the runs that are looked at closely.

mod json;

use sae_config::Site;
use sae_record::RecordError;
use sae_record::dashboard::{Dashboard, FeatureCard};
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::evidence::Evidence;
use crate::runs::{Group, Point};
use crate::study::Study;
use crate::subject::{Block, Subject, TextFile};
use crate::table::thousands;

pub use json::{Card, Limits, Listing, Row};

/// Bytes of cards on a page, all dictionaries together.
const PAGE: usize = 4 << 20;
/// Cards by which the size of a card is estimated.
const TRIED: usize = 16;
/// What the page shows of a card.
const ON_PAGE: Limits = Limits { highest: 8, per_interval: 1, tokens: 32 };

/// The dashboards of the runs that are looked at closely.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dashboards {
    /// One a dictionary.
    pub dictionaries: Vec<DictionaryDashboard>,
    /// What the page shows of them.
    #[serde(skip)]
    shown: Vec<Listing>,
}

/// What there is of a dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DictionaryDashboard {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// The site that the dictionary writes.
    pub site: Site,
    /// Tokens looked at.
    pub tokens: u64,
    /// Features that were active on one of them.
    pub active: u64,
    /// Dictionary elements.
    pub n_features: u64,
}

impl Subject for Dashboards {
    fn name(&self) -> &'static str {
        "dashboards"
    }

    fn title(&self) -> &'static str {
        "Features one by one"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let points: Vec<Point> =
            study.chosen.iter().flat_map(|chosen| chosen.points.clone()).collect();
        let budget = PAGE / points.len().max(1);
        let mut found = Self::default();
        for point in points {
            let Some(run) = study.runs.run(&point.run) else { continue };
            let folder = study.runs.folder_of(run).dashboard(point.site);
            let added = Dashboard::load(&folder).and_then(|dashboard| match dashboard {
                Some(dashboard) => {
                    found.add((&point.run, &point.group, point.site), &dashboard, budget)
                }
                None => Ok(()),
            });
            match added {
                Ok(()) => {}
                Err(error) => study.notes.add(format!(
                    "The features of {} at {} are left out: {error}.",
                    point.run, point.site
                )),
            }
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        self.dictionaries.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(Vec::new())
    }

    fn section(&self, _: &Evidence) -> Result<Vec<Block>, &'static str> {
        let Some(first) = self.dictionaries.first() else {
            return Err("No dashboards were made: sae features makes them.");
        };
        let json = serde_json::to_string(&self.shown).map_err(|_| "They could not be written.")?;
        let text = format!(
            "What single features are: what they are active on, in windows of text with the highest activations and with \
             lower ones; which tokens their dictionary elements make likelier, by the unembedding; what is near. Looked for on \
             {} tokens of the evaluation data. Here is an even sample of each dictionary, as much as a page holds; \
             sae view, given this folder, shows all features of all runs, with a prompt to try.",
            thousands(first.tokens)
        );
        Ok(vec![Block::Text(text), Block::Features(json)])
    }
}

impl Dashboards {
    /// Adds a dictionary of a run, with as many cards as make about `budget` bytes.
    pub fn add(
        &mut self,
        (run, group, site): (&str, &Group, Site),
        dashboard: &Dashboard,
        budget: usize,
    ) -> Result<(), RecordError> {
        self.dictionaries.push(DictionaryDashboard {
            run: run.to_owned(),
            group: group.clone(),
            site,
            tokens: dashboard.gathered.tokens,
            active: dashboard.cards.len() as u64,
            n_features: dashboard.gathered.n_features,
        });
        let mut listing = Listing::of(run, &group.to_string(), site, dashboard);
        let tried = made(dashboard, &sample(&dashboard.cards, TRIED))?;
        let length = |json: serde_json::Result<String>| json.map_or(0, |json| json.len());
        let bytes: usize = tried
            .iter()
            .map(|(row, card)| {
                length(serde_json::to_string(row)) + length(serde_json::to_string(card))
            })
            .sum();
        let most = budget * tried.len() / bytes.max(1);
        let made = made(dashboard, &sample(&dashboard.cards, most.max(1)))?;
        (listing.features, listing.cards) = made.into_iter().unzip();
        self.shown.push(listing);
        Ok(())
    }
}

/// Rows and cards as the page has them.
fn made(dashboard: &Dashboard, cards: &[&FeatureCard]) -> Result<Vec<(Row, Card)>, RecordError> {
    let examples = dashboard.examples_of(cards)?;
    let made = cards.iter().zip(examples).map(|(card, examples)| {
        (Row::of(dashboard, card), Card::of(dashboard, card, &examples, ON_PAGE))
    });
    Ok(made.collect())
}

/// So many cards, evenly from all, in the order of their features.
fn sample(cards: &[FeatureCard], most: usize) -> Vec<&FeatureCard> {
    if cards.len() <= most {
        return cards.iter().collect();
    }
    (0..most).map(|place| &cards[place * cards.len() / most]).collect()
}
