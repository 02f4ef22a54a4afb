//! Matrices as slices, row by row.

/// A matrix to read, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    numbers: &'a [f32],
    width: usize,
}

/// A matrix to write to, row by row.
#[derive(Debug)]
pub struct RowsMut<'a> {
    numbers: &'a mut [f32],
    width: usize,
}

/// Sizes that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct ShapeError {
    /// Which argument.
    pub what: &'static str,
    /// Its size, as the others ask for it.
    pub expected: String,
    /// Its size.
    pub found: String,
}

impl<'a> Rows<'a> {
    /// Rows of `width` numbers each, one after the other.
    pub fn new(numbers: &'a [f32], width: usize) -> Result<Self, ShapeError> {
        check_width(numbers.len(), width)?;
        Ok(Self { numbers, width })
    }

    /// All numbers.
    pub fn numbers(&self) -> &'a [f32] {
        self.numbers
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn count(&self) -> usize {
        self.numbers.len() / self.width
    }

    /// A row.
    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        &self.numbers[index * self.width..][..self.width]
    }
}

impl<'a> RowsMut<'a> {
    /// Rows of `width` numbers each, one after the other.
    pub fn new(numbers: &'a mut [f32], width: usize) -> Result<Self, ShapeError> {
        check_width(numbers.len(), width)?;
        Ok(Self { numbers, width })
    }

    /// All numbers.
    pub fn into_numbers(self) -> &'a mut [f32] {
        self.numbers
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn count(&self) -> usize {
        self.numbers.len() / self.width
    }
}

fn check_width(numbers: usize, width: usize) -> Result<(), ShapeError> {
    if width > 0 && numbers.is_multiple_of(width) {
        return Ok(());
    }
    let (expected, found) = (format!("rows of {width} numbers"), format!("{numbers} numbers"));
    Err(ShapeError { what: "a matrix", expected, found })
}

/// Refuses an argument of another size.
pub(crate) fn check(what: &'static str, expected: usize, found: usize) -> Result<(), ShapeError> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (format!("{expected} numbers"), format!("{found} numbers"));
    Err(ShapeError { what, expected, found })
}

/// Refuses a matrix of another shape.
pub(crate) fn check_rows(
    what: &'static str,
    expected: (usize, usize),
    found: (usize, usize),
) -> Result<(), ShapeError> {
    if expected == found {
        return Ok(());
    }
    let show = |(rows, width)| format!("{rows} rows of {width} numbers");
    Err(ShapeError { what, expected: show(expected), found: show(found) })
}

impl Rows<'_> {
    /// Rows and their width.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.count(), self.width)
    }
}

impl RowsMut<'_> {
    /// Rows and their width.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.count(), self.width)
    }
}
