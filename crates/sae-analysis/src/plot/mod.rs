//! Pictures: what each shows, in a file of its own, and how they are drawn and written, as SVG and as PNG.

mod axis;
mod figure;
mod panel;

pub(crate) mod activations;
pub(crate) mod downstream;
pub(crate) mod features;
pub(crate) mod frontier;
pub(crate) mod geometry;
pub(crate) mod histogram;
pub(crate) mod lines;
pub(crate) mod scatter;
pub(crate) mod stability;
pub(crate) mod umap;

pub(crate) use axis::Axis;
pub(crate) use figure::Figure;
pub(crate) use panel::{Draw, Panel, Series};
use sae_config::Site;

use crate::evidence::Evidence;

/// Which runs are looked at closely at a site, in words.
fn choice(evidence: &Evidence, site: Site) -> String {
    let by = evidence.match_by;
    if evidence.matches.iter().any(|found| found.site == site && found.by == by) {
        format!("runs matched by {}", by.describe())
    } else {
        "one run of each type".to_owned()
    }
}
