//! Messages that a client of Endpoint Security missed, by their sequence numbers: `seq_num` counts per client
//! and type of event, and a gap is that many lost messages (ESMessage.h, `es_message_t`).

use std::collections::BTreeMap;

/// Types that are followed; Endpoint Security has fewer.
const MAX_TYPES: usize = 512;

/// The next number of each type, of one client.
#[derive(Debug, Default)]
pub struct Sequence {
    next: BTreeMap<u32, u64>,
}

impl Sequence {
    /// How many messages of that type were lost before this one. Messages before version 2 have no number.
    pub fn lost(&mut self, event_type: u32, number: Option<u64>) -> u64 {
        let Some(number) = number else { return 0 };
        if self.next.len() >= MAX_TYPES && !self.next.contains_key(&event_type) {
            return 0;
        }
        // The first one sets where it begins.
        let expected = self.next.insert(event_type, number.saturating_add(1)).unwrap_or(number);
        number.saturating_sub(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_gaps_for_each_type() {
        let mut sequence = Sequence::default();
        let mut lost = |kind, number| sequence.lost(kind, Some(number));
        assert_eq!([lost(10, 5), lost(10, 6), lost(12, 0), lost(10, 9)], [0, 0, 0, 2]);
        assert_eq!([lost(12, 1), lost(10, 10), lost(10, 3), lost(10, 4)], [0, 0, 0, 0]);
        assert_eq!(lost(12, u64::MAX), u64::MAX - 2);
        assert_eq!(sequence.lost(10, None), 0);
    }

    #[test]
    fn stays_bounded() {
        let mut sequence = Sequence::default();
        for kind in 0..10_000 {
            sequence.lost(kind, Some(0));
        }
        assert_eq!(sequence.next.len(), MAX_TYPES);
    }
}
