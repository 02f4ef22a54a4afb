//! Fewer values where there are more than can be shown.

/// At most `most` of the values, evenly spaced.
pub(crate) fn thin<T: Copy>(values: &[T], most: usize) -> Vec<T> {
    if values.len() <= most {
        return values.to_vec();
    }
    (0..most).map(|i| values[i * values.len() / most]).collect()
}

#[cfg(test)]
mod tests {
    use super::thin;

    #[test]
    fn thinned_values_are_spread_over_all() {
        assert_eq!(thin(&[1, 2, 3], 3), [1, 2, 3]);
        let many: Vec<usize> = (0..100).collect();
        assert_eq!(thin(&many, 4), [0, 25, 50, 75]);
    }
}
