//! Which runs to compare with each other: one of each group, as equal as the sweep has them in one respect.
//!
//! The paper (arXiv 2405.12241) compares, at every layer, one run each of `local`, `e2e` and `e2e+ds`
//! with similar CE increase, similar L0, or similar numbers of alive features, chosen by hand. Here the choice is a rule.
//! At a site, and for a quantity `q` (CE increase, L0 or alive features):
//!
//! 1. *Candidates* are the points of a group that say something: `q`, CE increase, L0 and alive features are finite and
//!    above 0, and the SAE is better than zeros in its place (`ce_recovered > 0`). When `q` is alive features, those
//!    runs in which every feature is alive go too: such a run would have used more, so its number is a limit, not a
//!    result.
//! 2. Candidates that another one of the same group and seed dominates go: it is no worse in CE increase and in
//!    sparsity (L0; alive features if they are `q`), and better in one of them. With several learning rates this keeps
//!    a badly trained run from standing for its group because it happens to match. Points that are equal in both stay.
//! 3. Every choice of one candidate a group has a *ratio*, the largest `q` divided by the smallest. Quantities are
//!    compared by ratio because they span orders of magnitude: 0.02 against 0.03 nats is a difference, 1.02 against
//!    1.03 is not.
//! 4. Choices with a ratio up to [`EQUAL`] count as equally close. Among them goes first: one seed for all; then the
//!    geometric mean of `q` nearest, by ratio, to the middle of the range that the candidates of all groups share, which
//!    keeps away from the ends where SAEs do everything or nothing; then the smaller ratio; then the earlier points.
//! 5. Where no choice is that close, the smallest ratio wins; then one seed for all; then the earlier points.
//!
//! Of many groups there would be too many choices to look at: beyond [`MOST_CHOICES`], the candidates of each that are
//! furthest by ratio from the middle of the shared range go, until there are not.
//!
//! The result does not depend on anything but the points and their order. How close it is stands in [`Match::ratio`]:
//! a sweep whose groups do not overlap has a match too, and a bad one.

mod chosen;
mod show;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::str::FromStr;

use sae_config::Site;
use serde::{Deserialize, Serialize};

pub(crate) use self::chosen::Chosen;
pub(crate) use self::show::{BY, choice};
use crate::runs::{Group, Point};

/// The ratio up to which runs count as equally close: to tell 1 % from 3 % would choose by noise.
pub const EQUAL: f64 = 1.05;

/// The most choices that are looked at.
pub const MOST_CHOICES: usize = 100_000;

/// What matched runs are to be equal in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MatchBy {
    /// Cross-entropy increase.
    #[serde(rename = "ce")]
    CeIncrease,
    /// Active features per token.
    #[serde(rename = "l0")]
    L0,
    /// Alive features.
    #[serde(rename = "alive")]
    Alive,
}

/// A word that is not `ce`, `l0` or `alive`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "runs cannot be matched by `{0}`; expected `ce` (CE increase), `l0` or `alive` (alive features)"
)]
pub struct ParseMatchByError(String);

impl FromStr for MatchBy {
    type Err = ParseMatchByError;

    fn from_str(text: &str) -> Result<Self, ParseMatchByError> {
        match text {
            "ce" => Ok(Self::CeIncrease),
            "l0" => Ok(Self::L0),
            "alive" => Ok(Self::Alive),
            _ => Err(ParseMatchByError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for MatchBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CeIncrease => "ce",
            Self::L0 => "l0",
            Self::Alive => "alive",
        })
    }
}

impl MatchBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CeIncrease, Self::L0, Self::Alive];

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::CeIncrease => "CE increase",
            Self::L0 => "L0",
            Self::Alive => "alive features",
        }
    }

    /// The quantity of a point.
    pub fn of(self, point: &Point) -> f64 {
        match self {
            Self::CeIncrease => point.ce_increase,
            Self::L0 => point.l0,
            Self::Alive => point.alive as f64,
        }
    }

    /// What a frontier sets against CE increase.
    fn cost(self, point: &Point) -> f64 {
        match self {
            Self::CeIncrease | Self::L0 => point.l0,
            Self::Alive => point.alive as f64,
        }
    }
}

/// Runs of different groups at a site that are as equal as there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The site.
    pub site: Site,
    /// What they are equal in.
    pub by: MatchBy,
    /// A point a group, in their order.
    pub points: Vec<Point>,
    /// The largest of their quantities divided by the smallest: 1 is equal.
    pub ratio: f64,
}

impl Match {
    /// The point of a group.
    pub fn of_group(&self, group: &Group) -> Option<&Point> {
        self.points.iter().find(|point| point.group == *group)
    }
}

/// The match at every site, in the order of computation: of all groups that the site has candidates of. A site with
/// candidates of one group alone has none.
pub fn matches(points: &[Point], by: MatchBy) -> Vec<Match> {
    let sites: BTreeSet<Site> = points.iter().map(|point| point.site).collect();
    let groups: BTreeSet<Group> = points.iter().map(|point| point.group.clone()).collect();
    sites
        .into_iter()
        .filter_map(|site| {
            let is_there = |group: &&Group| !candidates(points, site, group, by).is_empty();
            let own: Vec<Group> = groups.iter().filter(is_there).cloned().collect();
            match_groups(points, site, &own, by)
        })
        .collect()
}

/// The match of some groups at a site, a pair for example. None for fewer than two groups, and where one of them has no
/// candidate.
pub fn match_groups(points: &[Point], site: Site, groups: &[Group], by: MatchBy) -> Option<Match> {
    if groups.len() < 2 {
        return None;
    }
    let mut groups: Vec<Vec<&Point>> =
        groups.iter().map(|group| candidates(points, site, group, by)).collect();
    let middle = shared_middle(&groups, by);
    limit(&mut groups, by, middle);
    let mut best: Option<Choice<'_>> = None;
    for_each_choice(&groups, |points| {
        let choice = Choice::of(points, by, middle);
        // Choices come in the order of the points, so that the earlier stays where two are equal.
        if best.as_ref().is_none_or(|best| choice.compare(best) == Ordering::Less) {
            best = Some(choice);
        }
    });
    let best = best?;
    Some(Match {
        site,
        by,
        points: best.points.into_iter().cloned().collect(),
        ratio: best.spread.exp(),
    })
}

/// Takes candidates away, the furthest from the middle first and from the largest group first, as long as there are too
/// many choices.
fn limit(groups: &mut [Vec<&Point>], by: MatchBy, middle: Option<f64>) {
    let choices = |groups: &[Vec<&Point>]| {
        groups.iter().try_fold(1_usize, |product, group| product.checked_mul(group.len()))
    };
    let all: Vec<f64> = groups.iter().flatten().map(|point| by.of(point).ln()).collect();
    let middle = middle.unwrap_or_else(|| all.iter().sum::<f64>() / all.len().max(1) as f64);
    while choices(groups).is_none_or(|choices| choices > MOST_CHOICES) {
        let Some(largest) = groups.iter_mut().max_by_key(|group| group.len()) else { return };
        let away = |point: &Point| (by.of(point).ln() - middle).abs();
        let furthest =
            (0..largest.len()).max_by(|&a, &b| away(largest[a]).total_cmp(&away(largest[b])));
        if let Some(furthest) = furthest {
            largest.remove(furthest);
        }
    }
}

/// The points of a group at a site that may stand for it: rules 1 and 2.
fn candidates<'a>(points: &'a [Point], site: Site, group: &Group, by: MatchBy) -> Vec<&'a Point> {
    let telling: Vec<&Point> = points
        .iter()
        .filter(|point| point.site == site && point.group == *group && says_something(point, by))
        .collect();
    let dominated = |point: &Point| {
        telling.iter().any(|other| {
            let (cost, ce) =
                (by.cost(other) - by.cost(point), other.ce_increase - point.ce_increase);
            other.seed == point.seed && cost <= 0.0 && ce <= 0.0 && cost + ce < 0.0
        })
    };
    telling.iter().copied().filter(|point| !dominated(point)).collect()
}

fn says_something(point: &Point, by: MatchBy) -> bool {
    let positive = |number: f64| number.is_finite() && number > 0.0;
    let limited = by == MatchBy::Alive && point.alive >= point.n_features;
    positive(point.ce_increase)
        && positive(point.l0)
        && point.alive > 0
        && point.ce_recovered > 0.0
        && !limited
}

/// The logarithm of the middle of the range that all groups share, where they share one.
fn shared_middle(groups: &[Vec<&Point>], by: MatchBy) -> Option<f64> {
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    for group in groups {
        let logs = || group.iter().map(|point| by.of(point).ln());
        low = low.max(logs().fold(f64::INFINITY, f64::min));
        high = high.min(logs().fold(f64::NEG_INFINITY, f64::max));
    }
    (low <= high).then_some(f64::midpoint(low, high))
}

/// A point a group, and how good a choice they are; less is better in everything.
struct Choice<'a> {
    points: Vec<&'a Point>,
    /// The logarithm of the largest quantity over the smallest.
    spread: f64,
    several_seeds: bool,
    /// From the middle of the shared range, in logarithms.
    distance: f64,
}

impl<'a> Choice<'a> {
    fn of(points: &[&'a Point], by: MatchBy, middle: Option<f64>) -> Self {
        let logs = || points.iter().map(|point| by.of(point).ln());
        let (low, high) =
            (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
        let mean = logs().sum::<f64>() / points.len() as f64;
        Self {
            points: points.to_vec(),
            spread: high - low,
            several_seeds: points.iter().any(|point| point.seed != points[0].seed),
            distance: middle.map_or(0.0, |middle| (mean - middle).abs()),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let close = |choice: &Self| choice.spread <= EQUAL.ln();
        let spread = self.spread.total_cmp(&other.spread);
        let seeds = self.several_seeds.cmp(&other.several_seeds);
        match (close(self), close(other)) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (true, true) => seeds.then(self.distance.total_cmp(&other.distance)).then(spread),
            (false, false) => spread.then(seeds),
        }
    }
}

/// Calls `visit` with every choice of one point a group, the last group's varying fastest; not at all if one is empty.
fn for_each_choice<'a>(groups: &[Vec<&'a Point>], mut visit: impl FnMut(&[&'a Point])) {
    let mut places = vec![0; groups.len()];
    loop {
        let choice: Option<Vec<&Point>> =
            groups.iter().zip(&places).map(|(group, &place)| group.get(place).copied()).collect();
        let Some(choice) = choice else { return };
        visit(&choice);
        let Some(next) = (0..groups.len()).rev().find(|&i| places[i] + 1 < groups[i].len()) else {
            return;
        };
        places[next] += 1;
        places[next + 1..].fill(0);
    }
}

#[cfg(test)]
mod tests;
