//! What the subjects of an analysis share while they are found: runs, matches, the runs that are looked at closely and
//! their dictionaries, notes, progress.
//!
//! What is missing or broken in one run is noted and left out; the rest is found without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sae_config::Site;
use sae_record::{Event, Phase};

use crate::dictionary::Dictionary;
use crate::frontier::{Frontier, base};
use crate::matching::{self, Chosen, Match, MatchBy};
use crate::options::AnalysisOptions;
use crate::runs::{Point, SweepRuns};
use crate::stability::{self, Seeds};
use crate::{AnalysisError, bootstrap};

/// The most groups at a site of which every two are compared; of more, each is compared with `local` or what stands in for it.
const ALL_PAIRS: usize = 4;

/// What the subjects share.
pub(crate) struct Study<'a> {
    pub runs: &'a SweepRuns,
    pub options: &'a AnalysisOptions,
    /// The sites that there are points of, in the order of computation.
    pub sites: Vec<Site>,
    /// Matched runs, by what they are matched in and by site.
    pub matches: Vec<Match>,
    /// The runs that are looked at closely at each site.
    pub chosen: Vec<Chosen>,
    /// Runs that differ in nothing but their seeds.
    pub seeds: Vec<Seeds>,
    /// Pairs of runs whose dictionaries are compared.
    pub pairs: Vec<Pair>,
    pub notes: Notes,
    progress: Progress<'a>,
    /// Dictionaries of one site that are looked at again; none where one cannot be read.
    kept: BTreeMap<(String, Site), Option<Arc<Dictionary>>>,
}

/// Two runs whose dictionaries at a site are compared.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub site: Site,
    pub a: Point,
    pub b: Point,
    /// Whether they differ in the seed alone; otherwise they are of two groups.
    pub are_seeds: bool,
}

impl<'a> Study<'a> {
    /// Matches the runs and chooses those that are looked at closely. Refused are options out of range.
    pub fn begin(
        runs: &'a SweepRuns,
        options: &'a AnalysisOptions,
        notice: &'a mut dyn FnMut(Event),
    ) -> Result<Self, AnalysisError> {
        // Of a single value no interval is computed, but the options are checked.
        bootstrap::mean(&[0.0], options.bootstrap)?;
        let frontier = Frontier::of(&runs.points);
        let sites: Vec<Site> = frontier.sites().into_iter().collect();
        let matches: Vec<Match> =
            MatchBy::ALL.into_iter().flat_map(|by| matching::matches(&runs.points, by)).collect();
        let chosen: Vec<Chosen> = sites
            .iter()
            .map(|site| Chosen::at(&runs.points, &matches, *site, options.match_by))
            .collect();
        let seeds = stability::side_by_side(runs);
        let pairs: Vec<Pair> =
            chosen.iter().flat_map(|chosen| pairs(chosen, &seeds, &runs.points)).collect();
        let mut notes = Notes(runs.notes());
        for note in chosen.iter().filter_map(Chosen::note) {
            notes.add(note);
        }
        let progress = Progress::begin(notice, runs.points.len() + 2 * pairs.len());
        Ok(Self {
            runs,
            options,
            sites,
            matches,
            chosen,
            seeds,
            pairs,
            notes,
            progress,
            kept: BTreeMap::new(),
        })
    }

    /// A piece of work begins, and with it the one before has ended.
    pub fn step(&mut self, what: &str) {
        self.progress.step(what);
    }

    /// The dictionary of a run at a site; none, with a note, where it cannot be read. Those of the runs of this site that are
    /// looked at closely are kept.
    pub fn dictionary(&mut self, point: &Point) -> Option<Arc<Dictionary>> {
        let key = (point.run.clone(), point.site);
        if let Some(kept) = self.kept.get(&key) {
            return kept.clone();
        }
        let folder = self.runs.folder_of(self.runs.run(&point.run)?);
        let found = match Dictionary::load(&folder, point.site, self.runs.alive_above) {
            Ok(dictionary) => Some(Arc::new(dictionary)),
            Err(error) => {
                self.notes.add(format!(
                    "The dictionary of {} at {} is left out: {error}.",
                    point.run, point.site
                ));
                None
            }
        };
        // Subjects go site by site: those of other sites have been looked at.
        self.kept.retain(|(_, site), _| *site == point.site);
        if self.is_looked_at_again(point) {
            self.kept.insert(key, found.clone());
        }
        found
    }

    /// The dictionaries of a pair, where both can be read and have alive features.
    pub fn dictionaries(&mut self, pair: &Pair) -> Option<[Arc<Dictionary>; 2]> {
        let (a, b) = (self.dictionary(&pair.a)?, self.dictionary(&pair.b)?);
        (a.rows.rows() > 0 && b.rows.rows() > 0).then_some([a, b])
    }

    fn is_looked_at_again(&self, point: &Point) -> bool {
        let same = |other: &Point| other.run == point.run && other.site == point.site;
        self.chosen.iter().any(|chosen| chosen.points.iter().any(same))
            || self.pairs.iter().any(|pair| same(&pair.a) || same(&pair.b))
    }

    /// The notes, once all is found.
    pub fn end(mut self) -> Vec<String> {
        self.progress.end();
        self.notes.0
    }
}

/// The pairs at a site: the chosen runs of two groups, and each chosen run beside those that differ from it in the seed
/// alone.
fn pairs(chosen: &Chosen, seeds: &[Seeds], points: &[Point]) -> Vec<Pair> {
    let site = chosen.site;
    let pair =
        |a: &Point, b: &Point, are_seeds| Pair { site, a: a.clone(), b: b.clone(), are_seeds };
    let own = &chosen.points;
    let groups = pairs_of(own).into_iter().map(|(a, b)| pair(a, b, false));
    let others = own.iter().flat_map(|own| {
        let with_own = move |seeds: &&Seeds| {
            seeds.site == site && seeds.runs.iter().any(|(_, run)| *run == own.run)
        };
        seeds
            .iter()
            .filter(with_own)
            .flat_map(|seeds| &seeds.runs)
            .filter(|(_, run)| *run != own.run)
            .filter_map(move |(_, run)| {
                let other = points.iter().find(|point| point.run == *run && point.site == site);
                Some(pair(own, other?, true))
            })
    });
    groups.chain(others).collect()
}

/// Every two of a few groups' points; of more than a few, the one that the others are compared with and each of them.
pub(crate) fn pairs_of(points: &[Point]) -> Vec<(&Point, &Point)> {
    if points.len() > ALL_PAIRS {
        let base = base(points.iter().map(|point| &point.group));
        let base = points.iter().find(|point| Some(&point.group) == base).unwrap_or(&points[0]);
        return points
            .iter()
            .filter(|other| other.group != base.group)
            .map(|other| (base, other))
            .collect();
    }
    let later =
        |first: usize| points[first + 1..].iter().map(move |second| (&points[first], second));
    (0..points.len()).flat_map(later).collect()
}

/// What a reader has to know, each once.
#[derive(Debug)]
pub(crate) struct Notes(Vec<String>);

impl Notes {
    pub fn add(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }
}

/// Tells how far the work is: a step is a dictionary, or two that are compared or embedded.
struct Progress<'a> {
    notice: &'a mut dyn FnMut(Event),
    begun: u64,
}

impl<'a> Progress<'a> {
    fn begin(notice: &'a mut dyn FnMut(Event), steps: usize) -> Self {
        notice(Event::began(Phase::Analyse, steps as u64, 0));
        Self { notice, begun: 0 }
    }

    fn step(&mut self, what: &str) {
        (self.notice)(Event::Advanced {
            done: self.begun,
            message: what.to_owned(),
            runs: Vec::new(),
        });
        self.begun += 1;
    }

    fn end(&mut self) {
        (self.notice)(Event::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL_PAIRS, pairs_of};
    use crate::runs::Point;

    fn point(group: &str) -> Point {
        let point = serde_json::json!({
            "run": group, "type": group, "site": "blocks.1.hook_resid_pre", "seed": 0, "coeff": 1.0, "l0": 1.0, "alive": 1,
            "n_features": 2, "ce_increase": 0.1, "kl": 0.1, "explained_variance": 0.5, "mse": 0.5, "ce_recovered": 0.9,
            "top1_agreement": 0.8, "training_tokens": 1,
        });
        serde_json::from_value(point).unwrap()
    }

    #[test]
    fn many_groups_are_compared_with_the_one_that_stands_for_local() {
        let few: Vec<Point> = ["local", "e2e", "e2e+ds"].map(point).into();
        let names = |points: &[Point]| -> Vec<[String; 2]> {
            pairs_of(points).iter().map(|(a, b)| [a.run.clone(), b.run.clone()]).collect()
        };
        assert_eq!(names(&few), [["local", "e2e"], ["local", "e2e+ds"], ["e2e", "e2e+ds"]]);
        assert!(names(&[]).is_empty() && names(&few[..1]).is_empty());
        let groups = ["e2e", "e2e+ds", "topk local", "topk e2e", "matryoshka e2e"];
        let many: Vec<Point> = groups.map(point).into();
        assert!(many.len() > ALL_PAIRS);
        let pairs = names(&many);
        assert_eq!(pairs.len(), 4);
        assert!(pairs.iter().all(|[base, other]| base == "topk local" && other != base));
    }
}
