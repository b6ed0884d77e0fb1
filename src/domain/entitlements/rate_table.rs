//! A table of bounded size of what has not drained: open addressing, a few places to look at, nothing to clean up.
//!
//! A slot whose state has drained says nothing any more, so the next key that comes by takes it. Where all places of a key are
//! taken by others that have not drained, there is no room, and the caller keeps the state elsewhere. The table works on slices
//! (a part of shared memory behind one lock each), so it knows nothing of locks.

use super::gcra::{Limit, Outcome, State};
use crate::domain::foundation::Exact;
use crate::domain::foundation::fault::Fault;

/// Places of a key.
const PROBES: usize = 32;

/// Whose state it is. A database is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Key {
    pub database: u32,
    pub feature: i32,
    pub customer: i64,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Slot {
    key: Key,
    state: State,
    drained_at: i64,
}

impl Slot {
    pub const EMPTY: Slot = Slot {
        key: Key { database: 0, feature: 0, customer: 0 },
        state: State { level: 0, period: 1, at: i64::MIN },
        drained_at: i64::MIN,
    };

    /// Whether anything stands there.
    pub fn is_used(&self, now: i64) -> bool {
        self.drained_at > now
    }
}

impl Key {
    /// Spreads keys evenly, whatever customers are numbered (the finalizer of splitmix64).
    pub fn hash(&self) -> u64 {
        let mix = |x: u64| {
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let small = (u64::from(self.database) << 32) | u64::from(self.feature.cast_unsigned());
        mix(mix(small).wrapping_add(self.customer.cast_unsigned()))
    }
}

/// As [`Limit::take`], on what stands in the table; none where there is no room. `dry` changes nothing.
pub fn take(
    slots: &mut [Slot],
    key: Key,
    limit: &Limit,
    now: i64,
    cost: Exact,
    dry: bool,
) -> Result<Option<Outcome>, Fault> {
    let Some(start) = usize::try_from(key.hash() >> 16).ok().and_then(|hash| hash.checked_rem(slots.len()))
    else {
        return Ok(None);
    };
    let mut room = None;
    let mut mine = None;
    for probe in 0..PROBES.min(slots.len()) {
        let place = (start + probe) % slots.len();
        let slot = &slots[place];
        if slot.key == key {
            mine = Some(place);
            break;
        }
        if room.is_none() && !slot.is_used(now) {
            room = Some(place);
        }
        if slot.key.database == 0 {
            break; // slots never become empty again, so the key can't stand behind this one
        }
    }
    let Some(place) = mine.or(room) else { return Ok(None) };
    let outcome = limit.take(mine.map(|place| slots[place].state), now, cost)?;
    if outcome.allowed && !dry {
        slots[place] = Slot { key, state: outcome.state, drained_at: limit.drained_at(&outcome.state) };
    }
    Ok(Some(outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SECOND: i64 = 1_000_000;

    fn key(customer: i64) -> Key {
        Key { database: 5, feature: 1, customer }
    }

    fn limit() -> Limit {
        Limit::new(Exact::ONE, SECOND, Exact::from_i64(2)).unwrap()
    }

    fn allowed(slots: &mut [Slot], customer: i64, now: i64) -> Option<bool> {
        take(slots, key(customer), &limit(), now, Exact::ONE, false).unwrap().map(|outcome| outcome.allowed)
    }

    #[test]
    fn a_full_table_has_no_room_until_something_drains() {
        let mut slots = [Slot::EMPTY; 4];
        for customer in 0..4 {
            assert_eq!(allowed(&mut slots, customer, 0), Some(true));
        }
        assert_eq!(allowed(&mut slots, 4, 0), None);
        assert_eq!(allowed(&mut slots, 4, SECOND - 1), None);
        // those that are there go on, and a second request of one keeps its slot for longer
        assert_eq!(allowed(&mut slots, 2, 0), Some(true));
        assert_eq!(allowed(&mut slots, 2, 0), Some(false));
        assert_eq!(slots.iter().filter(|slot| slot.is_used(SECOND)).count(), 1);
        for customer in 4..7 {
            assert_eq!(allowed(&mut slots, customer, SECOND), Some(true));
        }
        assert_eq!(allowed(&mut slots, 7, SECOND), None);
        // the one that had not drained is still there: a second's worth has come back, no more
        assert_eq!(allowed(&mut slots, 2, SECOND), Some(true));
        assert_eq!(allowed(&mut slots, 2, SECOND), Some(false));
    }

    #[test]
    fn looking_changes_nothing() {
        let mut slots = [Slot::EMPTY; 1];
        let look =
            |slots: &mut [Slot], customer| take(slots, key(customer), &limit(), 0, Exact::ONE, true).unwrap();
        assert!(look(&mut slots, 1).unwrap().allowed);
        assert!(!slots[0].is_used(0));
        assert_eq!(allowed(&mut slots, 1, 0), Some(true));
        assert_eq!(look(&mut slots, 1).unwrap().remaining, Exact::ZERO);
        assert_eq!(allowed(&mut slots, 1, 0), Some(true));
        assert!(!look(&mut slots, 1).unwrap().allowed);
        assert_eq!(look(&mut slots, 2), None);
        assert_eq!(take(&mut [], key(1), &limit(), 0, Exact::ONE, false).unwrap(), None);
        assert!(take(&mut slots, key(1), &limit(), 0, Exact::ONE.neg(), false).is_err());
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut parts = [0; 64];
        for customer in 0..64_000 {
            parts[usize::try_from(key(customer).hash() % 64).unwrap()] += 1;
        }
        assert!(parts.iter().all(|n| (800..1200).contains(n)), "{parts:?}");
    }

    proptest! {
        /// As long as there is room the answers are those of a table without bounds.
        #[test]
        fn answers_as_a_map_does(steps in prop::collection::vec((0i64..40, 0i64..400_000), 1..300)) {
            let mut slots = [Slot::EMPTY; 64];
            let mut states = HashMap::new();
            let mut now = 0;
            for (customer, gap) in steps {
                now += gap;
                let want = limit().take(states.get(&customer).copied(), now, Exact::ONE).unwrap();
                if let Some(got) = take(&mut slots, key(customer), &limit(), now, Exact::ONE, false).unwrap() {
                    prop_assert_eq!(got.allowed, want.allowed);
                    prop_assert_eq!(got.remaining, want.remaining);
                    states.insert(customer, want.state);
                } else {
                    prop_assert!(slots.iter().filter(|slot| slot.is_used(now)).count() >= PROBES);
                }
            }
        }
    }
}
