//! An axis: its label, its scale, and the range that shows all values.

/// An axis of a panel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub label: String,
    /// Whether powers of ten are evenly spaced; values that are not above 0 are then not drawn.
    pub logarithmic: bool,
    /// Values that the range has to hold beside those drawn.
    pub include: Vec<f64>,
    /// The range, where it does not follow from the values.
    pub fixed: Option<(f64, f64)>,
    /// Whether places on the axis are named: those of an embedding mean nothing.
    pub has_names: bool,
    /// The names of places 0, 1, 2, …; the places themselves where there are none.
    pub names: Vec<String>,
}

impl Axis {
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            logarithmic: false,
            include: Vec::new(),
            fixed: None,
            has_names: true,
            names: Vec::new(),
        }
    }

    #[must_use]
    pub fn logarithmic(self) -> Self {
        Self { logarithmic: true, ..self }
    }

    #[must_use]
    pub fn including(self, value: f64) -> Self {
        Self { include: vec![value], ..self }
    }

    #[must_use]
    pub fn fixed(self, low: f64, high: f64) -> Self {
        Self { fixed: Some((low, high)), ..self }
    }

    #[must_use]
    pub fn unnamed(self) -> Self {
        Self { has_names: false, ..self }
    }

    #[must_use]
    pub fn named(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Where a value lies, in units of the axis; none where it cannot be drawn.
    pub fn place(&self, value: f64) -> Option<f64> {
        let place = if self.logarithmic { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    /// The range of places that shows these values, with a margin.
    pub fn range(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let values = self.fixed.is_none().then_some(values).into_iter().flatten();
        let ends = self.fixed.into_iter().flat_map(|(low, high)| [low, high]);
        for place in
            values.chain(self.include.iter().copied()).chain(ends).filter_map(|v| self.place(v))
        {
            (low, high) = (low.min(place), high.max(place));
        }
        if low > high {
            return (0.0, 1.0);
        }
        if self.fixed.is_some() && low < high {
            return (low, high);
        }
        let margin = if high > low { 0.08 * (high - low) } else { 0.1 * high.abs().max(1.0) };
        (low - margin, high + margin)
    }

    /// What stands at a place of an axis of this length.
    pub fn name(&self, place: f64, length: f64) -> String {
        if !self.has_names {
            return String::new();
        }
        if !self.names.is_empty() {
            let whole = place.round();
            if (place - whole).abs() > 1e-6 || whole < 0.0 {
                return String::new();
            }
            return self.names.get(whole as usize).cloned().unwrap_or_default();
        }
        if !self.logarithmic {
            return number(place, length);
        }
        let value = 10_f64.powf(place);
        if (0.001..100_000.0).contains(&value) {
            let decimals = (1.0 - place).ceil().clamp(0.0, 4.0) as usize;
            let text = format!("{value:.decimals$}");
            if text.contains('.') {
                return text.trim_end_matches('0').trim_end_matches('.').to_owned();
            }
            return text;
        }
        format!("{value:.0e}")
    }
}

/// As many decimals as an axis of this length needs.
fn number(value: f64, length: f64) -> String {
    let decimals = (1.0 - length.log10()).ceil().clamp(0.0, 5.0) as usize;
    let text = format!("{value:.decimals$}");
    // −0.0 is an artefact of rounding.
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
        return text.trim_start_matches('-').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn ranges_hold_what_can_be_drawn() {
        let (low, high) = Axis::new("x").range([1.0, f64::NAN, 2.0].into_iter());
        assert!((low - 0.92).abs() < 1e-12 && (high - 2.08).abs() < 1e-12);
        assert_eq!(Axis::new("x").range([f64::NAN].into_iter()), (0.0, 1.0));
        assert_eq!(Axis::new("x").range([5.0].into_iter()), (4.5, 5.5));
        assert_eq!(Axis::new("x").fixed(0.0, 1.0).range([7.0].into_iter()), (0.0, 1.0));
        let (low, high) = Axis::new("x").including(0.0).range([1.0].into_iter());
        assert!(low < 0.0 && high > 1.0);
        let log = Axis::new("x").logarithmic();
        assert_eq!((log.place(0.0), log.place(-1.0), log.place(100.0)), (None, None, Some(2.0)));
        let names = [-4.0, -2.0, 0.0, 0.5, 3.0].map(|place| log.name(place, 4.0));
        assert_eq!(names, ["1e-4", "0.01", "1", "3.2", "1000"]);
        assert_eq!(Axis::new("x").name(-0.000_001, 1.0), "0.0");
    }
}
