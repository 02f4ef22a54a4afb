//! Documents → windows of the context length.

/// Joins documents by the end-of-text token and cuts the whole into windows, as the reference does: a window may hold
/// the end of one document and the start of the next, and nothing is padded. With a beginning-of-text token, every
/// window begins with it. What is left at the end is dropped.
#[derive(Debug)]
pub struct Packer<T = u32> {
    context_length: usize,
    end_of_text: T,
    begin: Option<T>,
    pending: Vec<T>,
}

impl<T: Copy> Packer<T> {
    /// A packer with nothing pending. A window holds a token at least, beside the beginning-of-text token: shorter context
    /// lengths count as that.
    pub fn new(context_length: usize, end_of_text: T, begin: Option<T>) -> Self {
        let context_length = context_length.max(1 + usize::from(begin.is_some()));
        Self { context_length, end_of_text, begin, pending: Vec::new() }
    }

    /// The tokens that no window holds yet.
    pub(crate) fn pending(&self) -> &[T] {
        &self.pending
    }

    /// Goes on with tokens that another packer had pending.
    pub(crate) fn restore(&mut self, pending: Vec<T>) {
        self.pending = pending;
    }

    /// Adds a document and passes on every window that it completes.
    pub fn push(&mut self, document: &[T], window: impl FnMut(&[T])) {
        self.push_with_end(document, self.end_of_text, window);
    }

    /// The same with an end-of-text token that knows its document.
    pub(crate) fn push_with_end(&mut self, document: &[T], end: T, mut window: impl FnMut(&[T])) {
        self.pending.extend_from_slice(document);
        self.pending.push(end);
        let own = self.context_length - usize::from(self.begin.is_some());
        let whole = self.pending.len() / own * own;
        let mut begun = Vec::new();
        for part in self.pending[..whole].chunks_exact(own) {
            match self.begin {
                None => window(part),
                Some(begin) => {
                    begun.clear();
                    begun.push(begin);
                    begun.extend_from_slice(part);
                    window(&begun);
                }
            }
        }
        self.pending.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use super::Packer;

    #[test]
    fn documents_are_joined_and_the_rest_dropped() {
        let pack = |begin| {
            let mut packer = Packer::new(3, 9, begin);
            let mut windows = Vec::new();
            for document in [&[1, 2][..], &[3], &[4, 5, 6, 7]] {
                packer.push(document, |window| windows.push(window.to_vec()));
            }
            windows
        };
        assert_eq!(pack(None), [[1, 2, 9], [3, 9, 4], [5, 6, 7]]);
        assert_eq!(pack(Some(8)), [[8, 1, 2], [8, 9, 3], [8, 9, 4], [8, 5, 6], [8, 7, 9]]);
    }
}
