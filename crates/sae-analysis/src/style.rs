//! Colours, markers and strokes, the same in every picture; types are told apart without colour too.

use plotters::style::RGBColor;
use sae_config::Variant;

use crate::SaeType;

/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(40, 40, 40);

/// The original model, and other things that are no type of SAE.
pub(crate) const NEUTRAL: RGBColor = RGBColor(110, 110, 110);

/// A marker at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Triangle,
    Square,
    Cross,
}

/// A line's stroke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

/// What something is drawn with wherever it appears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    pub colour: RGBColor,
    pub marker: Marker,
    pub stroke: Stroke,
    /// 1 is solid.
    pub opacity: f64,
}

impl Look {
    /// A type's: the colour tells its architecture, and of the paper's its objective; marker and stroke tell the objective.
    pub fn of(sae_type: SaeType) -> Self {
        let stroke = match sae_type.objective {
            Variant::Local | Variant::Other => Stroke::Solid,
            Variant::E2e => Stroke::Dashed,
            Variant::E2eDs => Stroke::Dotted,
        };
        Self { colour: colour(sae_type), marker: marker(sae_type), stroke, opacity: 1.0 }
    }

    /// Of what is numbered and has no type: colours, markers and strokes in turn.
    pub fn numbered(number: usize) -> Self {
        let (colour, marker, stroke) = match number % 4 {
            0 => (RGBColor(86, 60, 140), Marker::Circle, Stroke::Solid),
            1 => (RGBColor(204, 121, 167), Marker::Triangle, Stroke::Dashed),
            2 => (RGBColor(150, 115, 0), Marker::Square, Stroke::Dotted),
            _ => (RGBColor(86, 180, 233), Marker::Cross, Stroke::Solid),
        };
        Self { colour, marker, stroke, opacity: 1.0 }
    }

    /// The original model's.
    pub fn neutral() -> Self {
        Self { colour: NEUTRAL, marker: Marker::Cross, stroke: Stroke::Dashed, opacity: 1.0 }
    }

    /// The same, fainter.
    #[must_use]
    pub fn faint(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

/// Colours that stay apart for colour-blind eyes (Okabe and Ito 2008).
pub(crate) fn colour(sae_type: SaeType) -> RGBColor {
    // One colour an architecture beside the paper's, and some for those to come.
    const OTHERS: [RGBColor; 8] = [
        RGBColor(204, 121, 167),
        RGBColor(190, 135, 0),
        RGBColor(86, 180, 233),
        RGBColor(86, 60, 140),
        RGBColor(150, 70, 50),
        RGBColor(120, 150, 0),
        RGBColor(0, 90, 100),
        RGBColor(230, 60, 120),
    ];
    match (sae_type.architecture(), sae_type.objective) {
        (0, Variant::Local) => RGBColor(0, 114, 178),
        (0, Variant::E2e) => RGBColor(213, 94, 0),
        (0, Variant::E2eDs) => RGBColor(0, 158, 115),
        (0, Variant::Other) => NEUTRAL,
        (architecture, _) => OTHERS[(architecture - 1) % OTHERS.len()],
    }
}

pub(crate) fn marker(sae_type: SaeType) -> Marker {
    match sae_type.objective {
        Variant::Local => Marker::Circle,
        Variant::E2e => Marker::Triangle,
        Variant::E2eDs => Marker::Square,
        Variant::Other => Marker::Cross,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sae_config::Architecture;

    use super::Look;
    use crate::SaeType;

    #[test]
    fn no_two_types_look_alike() {
        let mut looks = BTreeSet::new();
        let mut types = 0;
        for architecture in Architecture::NAMES {
            for objective in ["local", "e2e", "e2e+ds"] {
                let own = architecture == &Architecture::NAMES[0];
                let name =
                    if own { objective.to_owned() } else { format!("{architecture} {objective}") };
                let sae_type: SaeType = name.parse().unwrap();
                looks.insert(format!("{:?}", Look::of(sae_type)));
                types += 1;
            }
        }
        assert_eq!(looks.len(), types);
    }
}
