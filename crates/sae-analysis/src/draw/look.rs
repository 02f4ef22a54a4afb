//! Colours, markers and strokes, the same in every figure; groups are told apart without colour too.

use std::collections::BTreeMap;

use crate::runs::{Group, Objective};

/// A colour, `#rrggbb`.
pub(crate) type Colour = &'static str;

/// The original model, and other things that are no group of runs.
const NEUTRAL: Colour = "#6e6e6e";

/// Colours that stay apart for colour-blind eyes (Okabe and Ito 2008): of the paper's three types.
const PAPER: [Colour; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// The same, of other groups and of what is numbered.
const OTHERS: [Colour; 8] =
    ["#cc79a7", "#be8700", "#56b4e9", "#563c8c", "#964632", "#789600", "#005a64", "#e63c78"];

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

impl Stroke {
    /// Lengths of dashes and gaps, as SVG has them; nothing for a solid line.
    pub fn dashes(self) -> &'static str {
        match self {
            Self::Solid => "",
            Self::Dashed => "7 4",
            Self::Dotted => "2 3",
        }
    }
}

/// What something is drawn with wherever it appears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    pub colour: Colour,
    pub marker: Marker,
    pub stroke: Stroke,
    /// 1 is solid.
    pub opacity: f64,
}

impl Look {
    /// Of what is numbered and belongs to no group: colours, markers and strokes in turn.
    pub fn numbered(number: usize) -> Self {
        let (colour, marker, stroke) = match number % 4 {
            0 => (OTHERS[3], Marker::Circle, Stroke::Solid),
            1 => (OTHERS[0], Marker::Triangle, Stroke::Dashed),
            2 => ("#967300", Marker::Square, Stroke::Dotted),
            _ => (OTHERS[2], Marker::Cross, Stroke::Solid),
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

    /// The same with a solid line.
    #[must_use]
    pub fn solid(self) -> Self {
        Self { stroke: Stroke::Solid, ..self }
    }
}

/// The look of every group of an analysis.
#[derive(Debug, Clone)]
pub(crate) struct Looks(BTreeMap<Group, Look>);

impl Looks {
    /// Marker and stroke tell the objective. The colour tells, of the paper's dictionaries, the objective, and of others
    /// the architecture; where that would make two groups look alike, the later one gets a colour that is free.
    pub fn of(groups: impl IntoIterator<Item = Group>) -> Self {
        let mut looks: BTreeMap<Group, Look> = BTreeMap::new();
        for group in groups {
            let (marker, stroke) = match group.objective {
                Objective::Local => (Marker::Circle, Stroke::Solid),
                Objective::E2e => (Marker::Triangle, Stroke::Dashed),
                Objective::E2eDs => (Marker::Square, Stroke::Dotted),
                Objective::Terms(_) => (Marker::Cross, Stroke::Solid),
            };
            let own = match (group.architecture(), &group.objective) {
                (0, Objective::Local) => PAPER[0],
                (0, Objective::E2e) => PAPER[1],
                (0, Objective::E2eDs) => PAPER[2],
                (0, Objective::Terms(_)) => NEUTRAL,
                (architecture, _) => OTHERS[(architecture - 1) % OTHERS.len()],
            };
            let taken = |colour: Colour| {
                looks.values().any(|look| look.colour == colour && look.marker == marker)
            };
            let free = || OTHERS.iter().rev().copied().find(|colour| !taken(colour));
            let colour = if taken(own) { free().unwrap_or(own) } else { own };
            looks.insert(group, Look { colour, marker, stroke, opacity: 1.0 });
        }
        Self(looks)
    }

    /// A group's look.
    pub fn group(&self, group: &Group) -> Look {
        self.0.get(group).copied().unwrap_or_else(Look::neutral)
    }

    /// The groups, in the order in which they are always named.
    pub fn groups(&self) -> impl Iterator<Item = (&Group, Look)> {
        self.0.iter().map(|(group, look)| (group, *look))
    }

    /// Whether colour alone tells all groups apart.
    pub fn differ_in_colour(&self) -> bool {
        let mut colours: Vec<Colour> = self.0.values().map(|look| look.colour).collect();
        let all = colours.len();
        colours.sort_unstable();
        colours.dedup();
        colours.len() == all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sae_config::Architecture;

    use super::{Looks, Marker, Stroke};
    use crate::runs::Group;

    fn looks(names: &[&str]) -> Looks {
        Looks::of(names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<Group>>())
    }

    #[test]
    fn no_two_groups_look_alike() {
        let mut names = Vec::new();
        for architecture in Architecture::NAMES {
            for objective in ["local", "e2e", "e2e+ds"] {
                let own = architecture == &Architecture::NAMES[0];
                names.push(if own {
                    objective.to_owned()
                } else {
                    format!("{architecture} {objective}")
                });
            }
        }
        names.extend(
            ["transcoder e2e", "transcoder skip e2e", "e2e, kl.coeff = 2"].map(str::to_owned),
        );
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = looks(&names);
        let seen: BTreeSet<String> =
            found.groups().map(|(_, look)| format!("{} {:?}", look.colour, look.marker)).collect();
        assert_eq!(seen.len(), names.len());
    }

    #[test]
    fn the_papers_types_keep_their_looks() {
        let found = looks(&["local", "e2e", "e2e+ds", "topk e2e", "e2e, kl.coeff = 2"]);
        let expected = [
            ("local", "#0072b2", Marker::Circle, Stroke::Solid),
            ("e2e", "#d55e00", Marker::Triangle, Stroke::Dashed),
            ("e2e+ds", "#009e73", Marker::Square, Stroke::Dotted),
        ];
        for (name, colour, marker, stroke) in expected {
            let look = found.group(&name.parse().unwrap());
            assert_eq!((look.colour, look.marker, look.stroke), (colour, marker, stroke), "{name}");
        }
        assert!(looks(&["local", "e2e"]).differ_in_colour());
        assert!(!looks(&["topk local", "topk e2e"]).differ_in_colour());
    }
}
