//! What a feature is: what it is active on ([`FeatureGatherer`]), which tokens it makes likelier ([`logit_lens`]), what lies near
//! it ([`nearest`]).

mod gather;
mod lens;
mod neighbours;
mod reservoir;

pub use gather::{
    BINS, Example, FeatureGatherer, GatheredFeature, HIGHEST, Histogram, INTERVALS, PARTNERS,
    PER_INTERVAL, Partner, SparseCodes,
};
pub use lens::{Lens, has_lens, logit_lens};
pub use neighbours::{Neighbour, nearest, nearest_within};
