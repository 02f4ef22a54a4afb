//! The best of many candidates, of different documents as far as there are any, in bounded memory.

/// A candidate, with what it is chosen by.
#[derive(Debug, Clone)]
pub(super) struct Candidate<T> {
    /// The greater, the better; no two of one reservoir are equal.
    pub rank: u64,
    /// Which document it is of.
    pub document: u64,
    pub value: T,
}

/// The best candidate of each of the best documents; where there are fewer documents than places, further candidates of theirs.
#[derive(Debug, Clone)]
pub(super) struct Reservoir<T> {
    most: usize,
    /// At most one of a document.
    distinct: Vec<Candidate<T>>,
    /// Others of the same documents; none once `distinct` is full.
    others: Vec<Candidate<T>>,
}

impl<T> Reservoir<T> {
    pub fn new(most: usize) -> Self {
        Self { most, distinct: Vec::new(), others: Vec::new() }
    }

    /// Whether a candidate of this rank may be kept, whatever its document: a quick look before it is made.
    pub fn may_take(&self, rank: u64) -> bool {
        self.distinct.len() < self.most || self.distinct.iter().any(|kept| kept.rank < rank)
    }

    /// Takes a candidate, or leaves it; gives back what is not kept, it or another. What is kept in the end does not depend on the
    /// order.
    pub fn offer(&mut self, candidate: Candidate<T>) -> Vec<Candidate<T>> {
        let of_document = self.distinct.iter_mut().find(|kept| kept.document == candidate.document);
        let mut left: Vec<Candidate<T>> = Vec::new();
        if let Some(kept) = of_document {
            let other = if candidate.rank > kept.rank {
                std::mem::replace(kept, candidate)
            } else {
                candidate
            };
            left.extend(self.keep_other(other));
        } else if self.distinct.len() < self.most {
            self.distinct.push(candidate);
        } else {
            left.push(replace_least(&mut self.distinct, candidate));
        }
        if self.distinct.len() == self.most {
            left.append(&mut self.others);
        }
        left
    }

    fn keep_other(&mut self, candidate: Candidate<T>) -> Option<Candidate<T>> {
        if self.distinct.len() == self.most {
            Some(candidate)
        } else if self.others.len() < self.most {
            self.others.push(candidate);
            None
        } else {
            Some(replace_least(&mut self.others, candidate))
        }
    }

    /// All that is kept, in no order: more than are asked for where documents are few.
    pub fn into_all(self) -> impl Iterator<Item = Candidate<T>> {
        self.distinct.into_iter().chain(self.others)
    }

    /// What was asked for, the best first: of different documents, then others of theirs; and what is not.
    pub fn into_best(self) -> (Vec<Candidate<T>>, Vec<Candidate<T>>) {
        let Self { most, mut distinct, mut others } = self;
        others.sort_unstable_by_key(|kept| std::cmp::Reverse(kept.rank));
        let left = others.split_off((most - distinct.len()).min(others.len()));
        distinct.extend(others);
        distinct.sort_unstable_by_key(|kept| std::cmp::Reverse(kept.rank));
        (distinct, left)
    }
}

/// Puts a candidate in the place of the least, if that is less; gives back the one that stays out.
fn replace_least<T>(kept: &mut [Candidate<T>], candidate: Candidate<T>) -> Candidate<T> {
    match kept.iter_mut().min_by_key(|kept| kept.rank) {
        Some(least) if least.rank < candidate.rank => std::mem::replace(least, candidate),
        _ => candidate,
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Reservoir};

    fn kept(most: usize, candidates: &[(u64, u64)]) -> Vec<u64> {
        let (mut reservoir, mut left) = (Reservoir::new(most), Vec::new());
        for &(rank, document) in candidates {
            assert!(rank == 0 || reservoir.may_take(u64::MAX));
            left.extend(reservoir.offer(Candidate { rank, document, value: () }));
        }
        let (best, rest) = reservoir.into_best();
        left.extend(rest);
        // Nothing is lost, and nothing is there twice.
        let mut all: Vec<u64> = best.iter().chain(&left).map(|kept| kept.rank).collect();
        let mut given: Vec<u64> = candidates.iter().map(|(rank, _)| *rank).collect();
        all.sort_unstable();
        given.sort_unstable();
        assert_eq!(all, given);
        best.into_iter().map(|kept| kept.rank).collect()
    }

    #[test]
    fn different_documents_come_first_in_any_order() {
        let candidates = [(9, 1), (8, 1), (7, 1), (5, 2), (3, 3), (2, 4)];
        let mut reversed = candidates;
        reversed.reverse();
        for candidates in [candidates, reversed] {
            assert_eq!(kept(3, &candidates), [9, 5, 3]);
            assert_eq!(kept(4, &candidates), [9, 5, 3, 2]);
            // With fewer documents than places, the best of the rest.
            assert_eq!(kept(6, &candidates), [9, 8, 7, 5, 3, 2]);
            assert_eq!(kept(5, &candidates), [9, 8, 5, 3, 2]);
        }
    }
}
