//! Colours and markers, the same in every picture; types are told apart without colour too.

use plotters::style::RGBColor;
use sae_config::Variant;

/// A type's marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Triangle,
    Square,
    Cross,
}

/// Colours that stay apart for colour-blind eyes (Okabe and Ito 2008).
pub(crate) fn colour(variant: Variant) -> RGBColor {
    match variant {
        Variant::Local => RGBColor(0, 114, 178),
        Variant::E2e => RGBColor(213, 94, 0),
        Variant::E2eDs => RGBColor(0, 158, 115),
        Variant::Other => RGBColor(110, 110, 110),
    }
}

pub(crate) fn marker(variant: Variant) -> Marker {
    match variant {
        Variant::Local => Marker::Circle,
        Variant::E2e => Marker::Triangle,
        Variant::E2eDs => Marker::Square,
        Variant::Other => Marker::Cross,
    }
}
