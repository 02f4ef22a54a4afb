//! Documents → windows of the context length.

/// Joins documents by the end-of-text token and cuts the whole into windows, as the reference does: a window may hold
/// the end of one document and the start of the next, and nothing is padded. What is left at the end is dropped.
#[derive(Debug)]
pub struct Packer {
    context_length: usize,
    end_of_text: u32,
    pending: Vec<u32>,
}

impl Packer {
    /// A packer with nothing pending.
    pub fn new(context_length: usize, end_of_text: u32) -> Self {
        Self { context_length, end_of_text, pending: Vec::new() }
    }

    /// Adds a document and passes on every window that it completes.
    pub fn push(&mut self, document: &[u32], mut window: impl FnMut(&[u32])) {
        self.pending.extend_from_slice(document);
        self.pending.push(self.end_of_text);
        let whole = self.pending.len() / self.context_length * self.context_length;
        self.pending[..whole].chunks_exact(self.context_length).for_each(&mut window);
        self.pending.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use super::Packer;

    #[test]
    fn documents_are_joined_and_the_rest_dropped() {
        let mut packer = Packer::new(3, 9);
        let mut windows = Vec::new();
        for document in [&[1, 2][..], &[3], &[4, 5, 6, 7]] {
            packer.push(document, |window| windows.push(window.to_vec()));
        }
        assert_eq!(windows, [[1, 2, 9], [3, 9, 4], [5, 6, 7]]);
    }
}
