//! Folds findings that say the same thing: a short `tcpdump` run a thousand times is a handful of lines.
//!
//! The same image, arguments, scope and user within ten minutes are one group. A finding is its repeat
//! when the group has shown one like it: the same handle kind and interface, at the same level or a
//! higher one. So folding never hides a higher level, a new scope or another interface. Repeats are
//! reported at 10, 100, 1000 and so on, and at the window's end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::finding::Level;
use crate::handle::HandleKind;
use crate::time::Timestamp;

/// How long a group folds from its first finding.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Groups kept; over it the oldest ends early.
const MAX_GROUPS: usize = 4096;
/// Kinds of finding told apart in one group.
const MAX_VARIANTS: usize = 64;

/// What findings must share to be one group: a digest over image, arguments, scope, user.
pub type GroupKey = [u8; 16];

/// What one finding of a group may differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Kind of the handle and its interface; `None` before there is a handle that can receive.
    pub handle: Option<(HandleKind, Option<String>)>,
    /// Level of the leading rule.
    pub level: Level,
}

/// The finding that a group's repeats refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Its id.
    pub id: String,
    /// Title of its leading rule.
    pub title: String,
    /// Level of its leading rule.
    pub level: Level,
    /// Image that the group shares.
    pub image: Option<String>,
    /// What was done, where that is a record of a log.
    pub what: Option<String>,
}

#[derive(Debug)]
struct Group {
    since: Timestamp,
    first: First,
    variants: Vec<Variant>,
    count: u64,
    reported: u64,
    last_at: Timestamp,
    stamp: u64,
}

/// A count that is due to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The finding that is repeated.
    pub first: First,
    /// Findings so far, the first included.
    pub count: u64,
    /// Since when.
    pub since: Timestamp,
    /// When the last one was.
    pub last_at: Timestamp,
}

/// What to do with a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// Show it.
    New,
    /// Do not; show the count where there is one.
    Repeat(Option<Repeated>),
}

/// All groups.
#[derive(Debug, Default)]
pub struct Folds {
    groups: HashMap<GroupKey, Group>,
    ends: BTreeMap<(Timestamp, u64), GroupKey>,
    stamp: u64,
}

impl Folds {
    /// Decides about a finding; `first` describes it should later ones refer to it. What was taken
    /// before at a lower level comes `again`, and is not counted twice.
    pub fn take(
        &mut self,
        key: GroupKey,
        variant: Variant,
        at: Timestamp,
        again: bool,
        first: impl FnOnce() -> First,
    ) -> Folded {
        if let Some(group) = self.groups.get_mut(&key) {
            let covered = group.variants.iter().any(|known| {
                known.level >= variant.level
                    && (variant.handle.is_none() || known.handle == variant.handle)
            });
            group.count += u64::from(!again);
            group.last_at = at;
            if covered {
                let due = !again && is_power_of_ten(group.count);
                return Folded::Repeat(due.then(|| group.report()));
            }
            if variant.level > group.first.level {
                group.first = first();
            }
            if group.variants.len() < MAX_VARIANTS {
                group.variants.push(variant);
            }
            return Folded::New;
        }
        if self.groups.len() >= MAX_GROUPS
            && let Some((_, oldest)) = self.ends.pop_first()
        {
            self.groups.remove(&oldest);
        }
        self.stamp += 1;
        self.ends.insert((at + WINDOW, self.stamp), key);
        let group = Group {
            since: at,
            first: first(),
            variants: vec![variant],
            count: 1,
            reported: 1,
            last_at: at,
            stamp: self.stamp,
        };
        self.groups.insert(key, group);
        Folded::New
    }

    /// When the next window ends.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.ends.first_key_value().map(|((at, _), _)| *at)
    }

    /// Ends the windows that are over at `now`, all of them for `None`; what was not yet shown of
    /// each comes out.
    pub fn end(&mut self, now: Option<Timestamp>) -> Vec<Repeated> {
        let mut out = Vec::new();
        while let Some(entry) = self.ends.first_entry()
            && now.is_none_or(|now| entry.key().0 <= now)
        {
            let stamp = entry.key().1;
            let key = entry.remove();
            if self.groups.get(&key).is_some_and(|group| group.stamp == stamp)
                && let Some(mut group) = self.groups.remove(&key)
                && group.count > group.reported
            {
                out.push(group.report());
            }
        }
        out
    }
}

impl Group {
    fn report(&mut self) -> Repeated {
        self.reported = self.count;
        Repeated {
            first: self.first.clone(),
            count: self.count,
            since: self.since,
            last_at: self.last_at,
        }
    }
}

fn is_power_of_ten(count: u64) -> bool {
    let mut power = 1u64;
    while power < count {
        power = power.saturating_mul(10);
    }
    power == count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> First {
        First { id: "1".into(), title: "t".into(), level: Level::Medium, image: None, what: None }
    }

    fn variant(interface: &str, level: Level) -> Variant {
        Variant { handle: Some((HandleKind::PacketSocket, Some(interface.into()))), level }
    }

    #[test]
    fn a_thousand_are_four_lines() {
        let mut folds = Folds::default();
        let mut shown = Vec::new();
        for n in 0..1000 {
            let at = Timestamp::from_secs(n / 10);
            match folds.take([1; 16], variant("lo", Level::Medium), at, false, first) {
                Folded::New => shown.push(1),
                Folded::Repeat(Some(repeated)) => shown.push(repeated.count),
                Folded::Repeat(None) => {}
            }
        }
        assert_eq!(shown, [1, 10, 100, 1000]);
        assert!(folds.end(None).is_empty());
    }

    #[test]
    fn a_higher_level_and_another_interface_are_shown() {
        let mut folds = Folds::default();
        let at = Timestamp::from_secs(1);
        let mut take = |variant| folds.take([1; 16], variant, at, false, first);
        assert_eq!(take(variant("lo", Level::Medium)), Folded::New);
        assert_eq!(take(variant("eth0", Level::Medium)), Folded::New);
        assert_eq!(take(variant("lo", Level::High)), Folded::New);
        assert_eq!(take(variant("lo", Level::Low)), Folded::Repeat(None));
        assert_eq!(take(Variant { handle: None, level: Level::Low }), Folded::Repeat(None));
    }

    #[test]
    fn the_end_of_the_window_tells_the_rest() {
        let mut folds = Folds::default();
        for _ in 0..7 {
            folds.take(
                [1; 16],
                variant("lo", Level::Medium),
                Timestamp::from_secs(1),
                false,
                first,
            );
        }
        assert!(folds.end(Some(Timestamp::from_secs(600))).is_empty());
        let ended = folds.end(Some(Timestamp::from_secs(601)));
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].count, 7);
    }

    #[test]
    fn what_comes_again_is_counted_once() {
        let mut folds = Folds::default();
        let at = Timestamp::from_secs(1);
        for _ in 0..4 {
            let early = Variant { handle: None, level: Level::Low };
            folds.take([1; 16], early, at, false, first);
            folds.take([1; 16], variant("lo", Level::Medium), at, true, first);
        }
        assert_eq!(folds.end(None)[0].count, 4);
    }

    #[test]
    fn groups_are_bounded() {
        let mut folds = Folds::default();
        for n in 0..20_000u128 {
            folds.take(
                n.to_le_bytes(),
                variant("lo", Level::Low),
                Timestamp::from_secs(1),
                false,
                first,
            );
        }
        assert!(folds.groups.len() <= MAX_GROUPS);
        assert_eq!(folds.groups.len(), folds.ends.len());
    }
}
