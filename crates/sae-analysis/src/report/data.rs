//! The evidence as the page's script reads it: JSON that no text in it can break out of.
//!
//! Points and intervals go as they are. Large clouds (embedded rows, features) go by columns, with as many digits and at
//! most as many points as a picture can show; `analysis.json` has them all. Configurations are on the page already.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;
use serde::Serialize;

use super::markup::{hex, marker_name};
use crate::evidence::{
    Downstream, Evidence, Geometry, PairEmbedding, RunFacts, RunFeatures, Seeds, SiteEvidence,
};
use crate::features::ScatterPoint;
use crate::histogram::Histogram;
use crate::matching::{Match, MatchBy};
use crate::style::{Look, Stroke};
use crate::thin::thin;
use crate::{Point, SaeType};

/// The most features of a run that are drawn.
pub(super) const MAX_FEATURES: usize = 3000;

#[derive(Serialize)]
struct Page<'a> {
    sweep: &'a str,
    /// In the order in which they are always named.
    types: BTreeSet<SaeType>,
    /// In the order of computation: all that anything is told of.
    sites: BTreeSet<Site>,
    styles: BTreeMap<String, Style>,
    /// Of what is numbered and has no type.
    numbered: [Style; 4],
    runs: Vec<Facts<'a>>,
    points: &'a [Point],
    /// The keys whose values have frontiers of their own.
    frontier_facets: &'a [String],
    match_by: MatchBy,
    matches: &'a [Match],
    downstream: &'a [Downstream],
    geometry: &'a Geometry,
    embeddings: Vec<Cloud<'a>>,
    activations: &'a BTreeMap<Site, SiteEvidence>,
    stability: &'a [Seeds],
    features: Vec<Features<'a>>,
}

/// How something is drawn.
#[derive(Serialize)]
struct Style {
    colour: String,
    marker: &'static str,
    /// Lengths of dashes and gaps; empty: a solid line.
    dash: &'static str,
}

#[derive(Serialize)]
struct Facts<'a> {
    run: &'a str,
    #[serde(rename = "type")]
    variant: SaeType,
    folder: &'a str,
    facets: &'a BTreeMap<String, String>,
    versions: &'a sae_record::summary::Versions,
}

/// Embedded rows, by column.
#[derive(Serialize)]
struct Cloud<'a> {
    site: Site,
    runs: &'a [String],
    types: &'a [SaeType],
    available: usize,
    run: Vec<usize>,
    feature: Vec<usize>,
    x: Vec<Option<f64>>,
    y: Vec<Option<f64>>,
}

/// A run's features, by column.
#[derive(Serialize)]
struct Features<'a> {
    run: &'a str,
    #[serde(rename = "type")]
    variant: SaeType,
    site: Site,
    log10_frequency_histogram: &'a Histogram,
    /// Features that could be drawn.
    available: usize,
    feature: Vec<u32>,
    log10_frequency: Vec<Option<f64>>,
    decoder_norm: Vec<Option<f64>>,
    encoder_norm: Vec<Option<f64>>,
    encoder_bias: Vec<Option<f64>>,
}

/// The data block's text.
pub(super) fn json(evidence: &Evidence) -> String {
    let page = Page {
        sweep: &evidence.sweep,
        types: evidence.types(),
        sites: sites(evidence),
        styles: evidence
            .types()
            .into_iter()
            .chain([SaeType::OTHER])
            .map(|variant| (variant.to_string(), style(Look::of(variant))))
            .collect(),
        numbered: [0, 1, 2, 3].map(|number| style(Look::numbered(number))),
        runs: evidence.runs.iter().map(facts).collect(),
        points: &evidence.frontier.points,
        frontier_facets: &evidence.frontier.facets,
        match_by: evidence.match_by,
        matches: &evidence.matches,
        downstream: &evidence.downstream,
        geometry: &evidence.geometry,
        embeddings: evidence.embeddings.iter().map(cloud).collect(),
        activations: &evidence.activations,
        stability: &evidence.stability,
        features: evidence.features.iter().map(features).collect(),
    };
    // Nothing in the page refuses to become JSON; if it did, the tables would still stand, which `null` says to the script.
    inert(&serde_json::to_string(&page).unwrap_or_else(|_| "null".to_owned()))
}

fn sites(evidence: &Evidence) -> BTreeSet<Site> {
    let points = evidence.frontier.points.iter().map(|point| point.site);
    let layers = evidence.downstream.iter().flat_map(|run| &run.layers).map(|layer| layer.site);
    let stability = evidence.stability.iter().map(|seeds| seeds.site);
    points.chain(layers).chain(stability).chain(evidence.activations.keys().copied()).collect()
}

/// Within a `script` element: no end tag, no comment, no line separator that old JavaScript minds. These characters
/// occur in JSON within strings only.
fn inert(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
        out
    })
}

fn style(look: Look) -> Style {
    let dash = match look.stroke {
        Stroke::Solid => "",
        Stroke::Dashed => "7 4",
        Stroke::Dotted => "2 3",
    };
    Style { colour: hex(look.colour), marker: marker_name(look.marker), dash }
}

fn facts(run: &RunFacts) -> Facts<'_> {
    let RunFacts { run, variant, folder, facets, versions, config: _ } = run;
    Facts { run, variant: *variant, folder, facets, versions }
}

fn cloud(pair: &PairEmbedding) -> Cloud<'_> {
    let points = &pair.embedding.points;
    Cloud {
        site: pair.site,
        runs: &pair.runs,
        types: &pair.types,
        available: pair.embedding.available,
        run: points.iter().map(|point| point.run).collect(),
        feature: points.iter().map(|point| point.row).collect(),
        x: points.iter().map(|point| drawn(f64::from(point.x))).collect(),
        y: points.iter().map(|point| drawn(f64::from(point.y))).collect(),
    }
}

fn features(run: &RunFeatures) -> Features<'_> {
    let all = &run.statistics.scatter;
    let shown = thin(all, MAX_FEATURES);
    let column =
        |value: fn(&ScatterPoint) -> f64| shown.iter().map(|point| drawn(value(point))).collect();
    Features {
        run: &run.run,
        variant: run.variant,
        site: run.site,
        log10_frequency_histogram: &run.statistics.log10_frequency,
        available: all.len(),
        feature: shown.iter().map(|point| point.feature).collect(),
        log10_frequency: column(|point| point.log10_frequency),
        decoder_norm: column(|point| point.decoder_norm),
        encoder_norm: column(|point| point.encoder_norm),
        encoder_bias: column(|point| point.encoder_bias),
    }
}

/// Four significant digits: a thousandth of a picture's width is less than a pixel.
fn drawn(value: f64) -> Option<f64> {
    if !value.is_finite() || value == 0.0 {
        return value.is_finite().then_some(0.0);
    }
    format!("{value:.3e}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{drawn, inert};

    #[test]
    fn a_data_block_holds_no_markup() {
        let text = "</script><!--<img onerror='x'>&amp;\u{2028}\u{2029}\"\\";
        let json = inert(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn clouds_keep_four_digits() {
        assert_eq!(drawn(-12.345_67), Some(-12.35));
        assert_eq!((drawn(0.0), drawn(f64::NAN)), (Some(0.0), None));
    }
}
