//! [`Wheel`]: one timer wheel per worker, hierarchical, 5 levels of 64 slots, tick 8 ms (Varghese & Lauck 1987, scheme
//! 7).
//!
//! Reads no clock: time is an argument. The entries live in the rows themselves, so an idle connection costs no
//! memory here. Invariant: a linked row is on exactly one list, and never expires before its deadline.

use super::os::Micros;

const TICK_US: Micros = 8_192;
const SLOTS: usize = 64;
const LEVELS: usize = 5;
const NIL: u32 = u32::MAX;

/// The part of a row that the wheel owns.
#[derive(Debug, Clone, Copy)]
pub struct WheelLink {
    previous: u32,
    next: u32,
    /// Tick of the deadline, 48 bits, and level × 64 + slot of the list, 16 bits; 0 = not linked.
    due_and_list: u64,
}

impl Default for WheelLink {
    fn default() -> Self {
        Self { previous: NIL, next: NIL, due_and_list: 0 }
    }
}

impl WheelLink {
    /// Returns the deadline, rounded up to a tick; `None` = the row is not linked.
    pub fn due(&self) -> Option<Micros> {
        (self.tick() != 0).then(|| self.tick() * TICK_US)
    }

    fn tick(&self) -> u64 {
        self.due_and_list >> 16
    }

    fn list(&self) -> (usize, usize) {
        let list = self.due_and_list as usize & 0xffff;
        (list / SLOTS, list % SLOTS)
    }
}

/// Finds the links of rows.
pub trait Links {
    /// Returns the link of an existing row.
    fn link(&mut self, slot: u32) -> &mut WheelLink;
}

/// The lists of rows by deadline, and the current tick.
#[derive(Debug)]
pub struct Wheel {
    heads: [[u32; SLOTS]; LEVELS],
    /// A set bit marks a list that is not empty.
    occupied: [u64; LEVELS],
    /// Last tick that `expire` has handled.
    tick: u64,
}

impl Wheel {
    /// Makes an empty wheel that begins at this time.
    pub fn new(now: Micros) -> Self {
        Self { heads: [[NIL; SLOTS]; LEVELS], occupied: [0; LEVELS], tick: now / TICK_US }
    }

    /// Sets the deadline of a row, replacing the one it had.
    pub fn set(&mut self, links: &mut impl Links, slot: u32, deadline: Micros) {
        self.clear(links, slot);
        let due = deadline.div_ceil(TICK_US).max(self.tick + 1);
        self.link(links, slot, due);
    }

    /// Takes a row off the wheel.
    pub fn clear(&mut self, links: &mut impl Links, slot: u32) {
        let link = std::mem::take(links.link(slot));
        if link.tick() == 0 {
            return;
        }
        let (level, index) = link.list();
        if link.previous == NIL {
            self.heads[level][index] = link.next;
            if link.next == NIL {
                self.occupied[level] &= !(1 << index);
            }
        } else {
            links.link(link.previous).next = link.next;
        }
        if link.next != NIL {
            links.link(link.next).previous = link.previous;
        }
    }

    /// Returns the next time at which `expire` has work; `None` = the wheel is empty.
    pub fn next(&self) -> Option<Micros> {
        (0..LEVELS).filter_map(|level| self.next_on(level)).min().map(|tick| tick * TICK_US)
    }

    /// Takes every row that is due off the wheel and appends its slot to `into`.
    pub fn expire(&mut self, links: &mut impl Links, now: Micros, into: &mut Vec<u32>) {
        let target = now / TICK_US;
        while let Some(tick) = (0..LEVELS).filter_map(|level| self.next_on(level)).min().filter(|t| *t <= target) {
            self.tick = tick;
            for level in (0..LEVELS).rev() {
                let width = 6 * level as u32;
                if tick & ((1 << width) - 1) == 0 {
                    self.empty(links, level, (tick >> width) as usize % SLOTS, into);
                }
            }
        }
        self.tick = self.tick.max(target);
    }

    /// Empties a list at its time: rows that are due are handed out, the others go to lower levels.
    fn empty(&mut self, links: &mut impl Links, level: usize, index: usize, into: &mut Vec<u32>) {
        let mut slot = std::mem::replace(&mut self.heads[level][index], NIL);
        self.occupied[level] &= !(1 << index);
        while slot != NIL {
            let link = std::mem::take(links.link(slot));
            if link.tick() <= self.tick {
                into.push(slot);
            } else {
                self.link(links, slot, link.tick());
            }
            slot = link.next;
        }
    }

    fn link(&mut self, links: &mut impl Links, slot: u32, due: u64) {
        // The level is where the deadline first differs from now, in groups of six bits; what lies beyond the last
        // level waits there and is linked again when its slot comes round.
        let differs = (due ^ self.tick) | 1;
        let level = ((63 - differs.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        let beyond = due.saturating_sub(self.tick) >> (6 * LEVELS) != 0;
        let at = if beyond { self.tick.wrapping_sub(1 << (6 * (LEVELS - 1))) } else { due };
        let index = (at >> (6 * level)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][index], slot);
        self.occupied[level] |= 1 << index;
        *links.link(slot) =
            WheelLink { previous: NIL, next: head, due_and_list: due << 16 | (level * SLOTS + index) as u64 };
        if head != NIL {
            links.link(head).previous = slot;
        }
    }

    /// Returns the next tick at which a list of this level is emptied.
    fn next_on(&self, level: usize) -> Option<u64> {
        let width = 6 * level as u32;
        let here = self.tick >> width;
        // From the slot after the current one round to it again.
        let turned = self.occupied[level].rotate_right((here as u32 + 1) % 64);
        (turned != 0).then(|| (here + 1 + u64::from(turned.trailing_zeros())) << width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Links for Vec<WheelLink> {
        fn link(&mut self, slot: u32) -> &mut WheelLink {
            &mut self[slot as usize]
        }
    }

    fn run(wheel: &mut Wheel, links: &mut Vec<WheelLink>, now: Micros) -> Vec<u32> {
        let mut expired = Vec::new();
        wheel.expire(links, now, &mut expired);
        expired.sort_unstable();
        expired
    }

    #[test]
    fn a_row_expires_at_its_deadline_and_not_before() {
        for distance in [1, TICK_US, 1_000_000, 3_600_000_000, 86_400_000_000, 400 * 86_400_000_000] {
            let start = 12_345_678;
            let (mut wheel, mut links) = (Wheel::new(start), vec![WheelLink::default(); 1]);
            wheel.set(&mut links, 0, start + distance);
            let mut now = start;
            let mut wakes = 0;
            while let Some(next) = wheel.next() {
                assert!(next > now);
                now = next;
                wakes += 1;
                for _ in run(&mut wheel, &mut links, now) {
                    assert!(now >= start + distance && now < start + distance + 2 * TICK_US, "{distance}: {now}");
                }
            }
            assert_eq!(links[0].due(), None);
            assert!(wakes < 12, "{distance}: {wakes}");
        }
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_list(
            start in 1_000_000u64..1 << 40,
            moves in prop::collection::vec((0u32..40, prop_oneof![0u64..100_000, 0u64..200_000_000, 0u64..20_000_000_000], any::<bool>()), 1..200),
        ) {
            let (mut wheel, mut links) = (Wheel::new(start), vec![WheelLink::default(); 40]);
            let mut model = [None::<u64>; 40];
            let mut now = start;
            for (slot, distance, step) in moves {
                if step {
                    now += distance / 4;
                    let expired = run(&mut wheel, &mut links, now);
                    for slot in 0..40u32 {
                        let due = model[slot as usize].is_some_and(|due| due <= now / TICK_US);
                        prop_assert_eq!(expired.contains(&slot), due, "slot {}", slot);
                        if due {
                            model[slot as usize] = None;
                        }
                    }
                } else if distance % 7 == 0 {
                    wheel.clear(&mut links, slot);
                    model[slot as usize] = None;
                } else {
                    wheel.set(&mut links, slot, now + distance);
                    model[slot as usize] = Some((now + distance).div_ceil(TICK_US).max(now / TICK_US + 1));
                }
                let nearest = model.iter().flatten().min();
                prop_assert_eq!(wheel.next().is_some(), nearest.is_some());
                if let (Some(next), Some(nearest)) = (wheel.next(), nearest) {
                    prop_assert!(next <= nearest * TICK_US);
                }
            }
        }
    }
}
