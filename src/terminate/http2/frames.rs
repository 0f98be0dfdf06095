//! [`FrameWalk`]: finds the heads of frames in the bytes of a connection (RFC 9113 §4.1), and single bytes of their
//! payloads.
//!
//! Skips the rest, copies no payload, and judges no frame. Invariant: the steps depend on the bytes, not on how they
//! were cut.

const HEAD: usize = 9;

/// What the head of a frame says, but for its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of the payload.
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
}

impl FrameHead {
    fn of([high, middle, low, kind, flags, ..]: [u8; HEAD]) -> Self {
        Self { length: u32::from_be_bytes([0, high, middle, low]), kind, flags }
    }

    /// True if this flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What a walk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStep {
    /// The head of a frame is complete.
    Head(FrameHead),
    /// The byte of the payload that [`FrameWalk::look_at`] has asked for.
    Byte(FrameHead, u8),
    /// The frame is complete.
    End(FrameHead),
}

/// Place in the frames of one side of a connection.
#[derive(Debug, Default)]
pub struct FrameWalk {
    head: [u8; HEAD],
    /// Bytes of the head that have come; when all have, the payload follows.
    have: u8,
    /// Bytes of the payload that are still to come.
    left: u32,
    /// How many of them come before the byte that is asked for.
    look: Option<u32>,
}

impl FrameWalk {
    /// The place before so many bytes that are no frame, which pass as the payload of one with a head of zeros.
    pub fn before(skipped: u32) -> Self {
        Self { have: HEAD as u8, left: skipped, ..Self::default() }
    }

    /// Walks on, and removes the bytes that were passed. `None`: more bytes are needed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameStep> {
        let have = usize::from(self.have);
        if have == HEAD {
            return self.pass_payload(bytes);
        }
        let part = take(bytes, HEAD - have);
        self.head[have..have + part.len()].copy_from_slice(part);
        self.have += part.len() as u8;
        (usize::from(self.have) == HEAD).then(|| {
            let head = FrameHead::of(self.head);
            self.left = head.length;
            FrameStep::Head(head)
        })
    }

    /// Asks for this byte of the payload behind the head that has just come, if there is one.
    pub fn look_at(&mut self, index: u32) {
        self.look = (index < self.left).then_some(index);
    }

    /// True if a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        (1..HEAD).contains(&usize::from(self.have))
    }

    fn pass_payload(&mut self, bytes: &mut &[u8]) -> Option<FrameStep> {
        if let Some(before) = self.look {
            let passed = take(bytes, before as usize).len() as u32;
            self.left -= passed;
            self.look = Some(before - passed);
            let &[byte] = take(bytes, usize::from(passed == before)) else { return None };
            self.left -= 1;
            self.look = None;
            return Some(FrameStep::Byte(FrameHead::of(self.head), byte));
        }
        self.left -= take(bytes, self.left as usize).len() as u32;
        (self.left == 0).then(|| {
            self.have = 0;
            FrameStep::End(FrameHead::of(self.head))
        })
    }
}

/// Removes so many bytes, or as many as there are.
fn take<'b>(bytes: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(walk: &mut FrameWalk, mut bytes: &[u8]) -> Vec<FrameStep> {
        let mut steps = Vec::new();
        while let Some(step) = walk.next(&mut bytes) {
            steps.push(step);
            if let FrameStep::Head(FrameHead { flags, .. }) = step {
                walk.look_at(flags.into());
            }
        }
        assert!(bytes.is_empty());
        steps
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let bytes = [
            &b"PRI *"[..],
            &[0, 0, 3, 1, 1, 0, 0, 0, 1, 7, 8, 9],
            &[0, 0, 0, 2, 0, 0, 0, 0, 1],
            &[0, 1, 0, 3, 9, 0, 0, 0, 1],
            &[5; 256],
            &[0, 0, 1, 4, 1, 0, 0, 0, 0, 6],
        ]
        .concat();
        let head = |length, kind, flags| FrameHead { length, kind, flags };
        let [zeros, first, empty, long, short] =
            [head(0, 0, 0), head(3, 1, 1), head(0, 2, 0), head(256, 3, 9), head(1, 4, 1)];
        let wanted = [
            FrameStep::End(zeros),
            FrameStep::Head(first),
            FrameStep::Byte(first, 8),
            FrameStep::End(first),
            FrameStep::Head(empty),
            FrameStep::End(empty),
            FrameStep::Head(long),
            FrameStep::Byte(long, 5),
            FrameStep::End(long),
            FrameStep::Head(short),
            FrameStep::End(short),
        ];
        for cut in 0..=bytes.len() {
            let mut walk = FrameWalk::before(5);
            let found = [steps(&mut walk, &bytes[..cut]), steps(&mut walk, &bytes[cut..])].concat();
            assert_eq!(found, wanted, "{cut}");
            assert!(!walk.is_in_head());
        }
        let mut walk = FrameWalk::before(5);
        let found: Vec<_> = bytes.chunks(1).flat_map(|byte| steps(&mut walk, byte)).collect();
        assert_eq!(found, wanted);
    }
}
