//! An axis: its label, its scale, the range that shows all values, and its ticks.

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

    /// The places of ticks in a range: every name, else at most `most` round values.
    pub fn ticks(&self, (low, high): (f64, f64), most: usize) -> Vec<f64> {
        if !self.names.is_empty() {
            return multiples(1.0, low, high);
        }
        if !self.logarithmic {
            return multiples(step(low, high, most), low, high);
        }
        if self.is_narrow((low, high)) {
            let (low, high) = (10_f64.powf(low), 10_f64.powf(high));
            return multiples(step(low, high, most), low, high)
                .into_iter()
                .map(f64::log10)
                .collect();
        }
        let finer = fractions((low, high));
        if finer.len() <= most {
            finer
        } else {
            multiples(step(low, high, most).max(1.0), low, high)
        }
    }

    /// Whether a logarithmic axis is so short that ticks stand at even values, as on others.
    fn is_narrow(&self, range: (f64, f64)) -> bool {
        self.logarithmic && fractions(range).len() < 3
    }

    /// What stands at a tick of an axis with this range.
    pub fn name(&self, place: f64, (low, high): (f64, f64), most: usize) -> String {
        if !self.has_names {
            return String::new();
        }
        if !self.names.is_empty() {
            return usize::try_from(place.round() as i64)
                .ok()
                .and_then(|place| self.names.get(place).cloned())
                .unwrap_or_default();
        }
        if !self.logarithmic {
            return number(place, step(low, high, most));
        }
        let value = 10_f64.powf(place);
        if self.is_narrow((low, high)) {
            return number(value, step(10_f64.powf(low), 10_f64.powf(high), most));
        }
        if (0.001..100_000.0).contains(&value) {
            // Two significant digits.
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

/// The logarithms of 1, 2 and 5 times every power of ten in a range of them.
fn fractions((low, high): (f64, f64)) -> Vec<f64> {
    multiples(1.0, low.floor(), high)
        .into_iter()
        .flat_map(|power| [1.0_f64, 2.0, 5.0].map(|factor| power + factor.log10()))
        .filter(|place| (low..=high).contains(place))
        .collect()
}

/// 1, 2 or 5 times a power of ten, so that a range has at most so many multiples of it.
fn step(low: f64, high: f64, most: usize) -> f64 {
    let rough = (high - low) / most as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0].map(|factor| factor * power);
    round.into_iter().find(|step| *step >= rough * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// The multiples of a step in a range.
fn multiples(step: f64, low: f64, high: f64) -> Vec<f64> {
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// With the decimals that multiples of a step have.
fn number(value: f64, step: f64) -> String {
    let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
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
        let names = [-4.0, -2.0, 0.0, 0.5, 3.0].map(|place| log.name(place, (-4.0, 3.0), 7));
        assert_eq!(names, ["1e-4", "0.01", "1", "3.2", "1000"]);
        assert_eq!(Axis::new("x").name(-0.000_001, (0.0, 1.0), 7), "0.0");
    }

    /// The names of an axis's ticks.
    fn ticks(axis: &Axis, low: f64, high: f64) -> Vec<String> {
        let range = (low, high);
        axis.ticks(range, 7).into_iter().map(|place| axis.name(place, range, 7)).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        let axis = Axis::new("x");
        assert_eq!(ticks(&axis, 0.4, 8.6), ["2", "4", "6", "8"]);
        assert_eq!(ticks(&axis, -0.01, 0.26), ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]);
        assert_eq!(
            ticks(&axis, 970.0, 4100.0),
            ["1000", "1500", "2000", "2500", "3000", "3500", "4000"]
        );
        let log = Axis::new("x").logarithmic();
        assert_eq!(ticks(&log, -2.1, 0.2), ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]);
        assert_eq!(ticks(&log, -4.2, 2.1), ["1e-4", "0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(ticks(&log, 21.5_f64.log10(), 41.0_f64.log10()), ["25", "30", "35", "40"]);
        assert_eq!(ticks(&log, 10.1_f64.log10(), 11.6_f64.log10()), ["10.5", "11.0", "11.5"]);
        let named = Axis::new("x").named(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(ticks(&named, -0.5, 1.5), ["a", "b"]);
    }
}
