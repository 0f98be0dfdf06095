//! Bulk in one direction over the imitated kernel: when it has a large pipe, and what waits for a receiver that stops.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::config::Address;
use crate::splicer::LargePipes;
use crate::splicer::os::Accepted;
use crate::splicer::sim::kernel::{Id, Kernel};
use crate::splicer::sim::os::{SimOs, SimPipe, SimSocket};
use crate::splicer::sim::socket::PeerRead;

const LARGE: usize = 1 << 20;
const STREAM: usize = 4 << 20;

/// Seeds of the imitated kernel: it chooses the slots of pipes and what a slot takes.
const SEEDS: u64 = 20;

/// A direction between two sockets, the sender's bytes all there.
struct Rig {
    kernel: Rc<RefCell<Kernel>>,
    sender: Id,
    os: SimOs,
    from: SimSocket,
    to: SimSocket,
    places: Arc<LargePipes>,
    pipes: Pipes<SimOs>,
    scratch: Vec<u8>,
    way: Direction<SimPipe>,
    /// Most bytes that the direction may read in one step.
    step_bytes: u64,
    heard: usize,
}

impl Rig {
    fn new(seed: u64, room: usize, places: usize) -> Self {
        let mut kernel = Kernel::new(seed);
        (kernel.scripted, kernel.room_min) = (true, room);
        let kernel = Rc::new(RefCell::new(kernel));
        let mut os = SimOs(Rc::clone(&kernel), 0);
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let sender = kernel.borrow_mut().dial(address);
        let Accepted::Connection(from, _) = os.accept(&()) else { panic!("one has dialled") };
        let to = os.connect(&Address::Tcp(address), None).unwrap();
        kernel.borrow_mut().answer(to.id, Ok(()));
        let bytes: Vec<u8> = (0..STREAM).map(byte).collect();
        assert_eq!(kernel.borrow_mut().send(sender, &bytes, usize::MAX), STREAM);
        kernel.borrow_mut().settle(sender);
        let places = Arc::new(LargePipes::new(LARGE as u32, places));
        let pipes = Pipes::at_most(8, Arc::clone(&places));
        let way = Direction { readable: true, ..Direction::writable() };
        Self {
            kernel,
            sender,
            os,
            from,
            to,
            places,
            pipes,
            scratch: vec![0; COPY_BYTES],
            step_bytes: STEP_BYTES,
            way,
            heard: 0,
        }
    }

    fn pump(&mut self) -> Pumped {
        self.kernel.borrow_mut().next_turn();
        let (pipes, scratch, step_bytes) = (&mut self.pipes, &mut self.scratch, self.step_bytes);
        let mut tools = Tools { os: &mut self.os, pipes, scratch, step_bytes, spliced: 0 };
        self.way.pump(&self.from, &self.to, &mut tools)
    }

    /// The receiver takes up to so many bytes, and there is room again.
    fn hear(&mut self, most: usize) {
        let mut bytes = Vec::new();
        let taken = self.kernel.borrow_mut().take(self.to.id, most, &mut bytes);
        assert!(matches!(taken, PeerRead::Bytes(_)), "{taken:?}");
        let fits = bytes.iter().enumerate().all(|(at, taken)| *taken == byte(self.heard + at));
        assert!(fits, "the bytes from {} on are not those that were sent", self.heard);
        self.heard += bytes.len();
        self.way.writable = true;
    }

    fn is_large(&self) -> bool {
        self.way.pipe.as_ref().is_some_and(Filled::is_large)
    }
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

#[test]
fn a_receiver_that_takes_all_is_served_by_a_large_pipe_that_others_may_have_between_turns() {
    let mut large = 0;
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, STREAM, 1);
        loop {
            let before = rig.way.bytes;
            let pumped = rig.pump();
            assert_eq!((rig.pipes.in_use(), rig.way.held()), (0, 0), "seed {seed}: a receiver with room keeps no pipe");
            assert!(rig.way.bytes - before < STEP_BYTES + COPY_BYTES as u64, "seed {seed}: others wait for their turn");
            if pumped == Pumped::Idle {
                break;
            }
        }
        rig.hear(STREAM);
        assert_eq!(rig.heard, STREAM);
        large += rig.pipes.large();
    }
    assert!(large >= SEEDS as usize / 2, "a large pipe was used in {large} of {SEEDS} worlds");
}

#[test]
fn bytes_between_an_urgent_byte_and_the_end_are_passed_on_though_they_come_before_their_event() {
    const BEHIND: usize = 1_000;
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, 2 * STREAM, 1);
        while !rig.way.splicing {
            rig.step_bytes = 1;
            rig.pump();
        }
        {
            // They come between the last event and the next call.
            let mut kernel = rig.kernel.borrow_mut();
            let bytes: Vec<u8> = (STREAM..STREAM + BEHIND).map(byte).collect();
            kernel.send_urgent(rig.sender);
            assert_eq!(kernel.send(rig.sender, &bytes, usize::MAX), BEHIND);
            kernel.finish(rig.sender);
            kernel.settle(rig.sender);
        }
        rig.step_bytes = STEP_BYTES;
        while rig.pump() == Pumped::Again {}
        (rig.way.readable, rig.way.finished) = (true, true);
        while rig.pump() == Pumped::Again {}
        rig.hear(2 * STREAM);
        assert_eq!((rig.heard, rig.way.end_seen), (STREAM + BEHIND, true), "seed {seed}");
    }
}

#[test]
fn the_more_connections_wait_for_their_turn_the_less_each_reads_in_it() {
    assert_eq!([0, 1, 4, 8, 128, 10_000].map(step_bytes), [4 << 20, 4 << 20, 4 << 20, 2 << 20, 128 << 10, 128 << 10]);
    let mut large = 0;
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, STREAM, 1);
        while rig.heard < STREAM {
            rig.step_bytes = step_bytes(if rig.is_large() { 1 } else { 1 << (rig.heard % 9) });
            let before = rig.way.bytes;
            let pumped = rig.pump();
            assert!(rig.way.bytes - before < rig.step_bytes + COPY_BYTES as u64, "seed {seed}");
            large += rig.pipes.large();
            if pumped == Pumped::Idle {
                rig.hear(STREAM);
            }
        }
    }
    assert!(large > 0);
}

#[test]
fn what_waits_for_a_receiver_that_stops_is_one_large_filling_and_later_small_ones() {
    let mut stopped = 0;
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, 2 * LARGE, 1);
        while rig.pump() == Pumped::Again {}
        assert!(!rig.way.writable && rig.way.held() <= LARGE);
        let is_large = rig.is_large();
        stopped += usize::from(is_large);
        // From here on the receiver is slow.
        let (mut held, mut was_large) = (rig.way.held(), is_large);
        while rig.heard < STREAM {
            rig.hear(20_000);
            while rig.pump() == Pumped::Again {}
            let now = rig.way.held();
            assert!(
                now <= COPY_BYTES || (was_large && rig.is_large() && now <= held),
                "seed {seed}: {now} after {held}"
            );
            (held, was_large) = (now, rig.is_large());
        }
        assert_eq!((rig.pipes.in_use(), rig.way.held()), (0, 0));
    }
    assert!(stopped >= SEEDS as usize / 4, "a large pipe was full in {stopped} of {SEEDS} worlds");
}

#[test]
fn bulk_goes_on_by_small_pipes_where_no_place_is_free() {
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, LARGE, 0);
        while rig.heard < STREAM {
            while rig.pump() == Pumped::Again {}
            assert!(rig.way.held() <= COPY_BYTES, "seed {seed}");
            rig.hear(STREAM);
        }
        assert_eq!((rig.kernel.borrow().grown, rig.pipes.large()), (0, 0));
        assert!(rig.kernel.borrow().violations.is_empty(), "{:?}", rig.kernel.borrow().violations);
    }
}

/// Bytes that leave for another process with their row count there, until the receiver has taken them.
#[test]
fn bytes_out_of_a_large_pipe_keep_a_place_until_they_are_taken() {
    let mut moved = 0;
    for seed in 0..SEEDS {
        let mut rig = Rig::new(seed, 2 * LARGE, 1);
        while rig.pump() == Pumped::Again {}
        let held = rig.way.held();
        if !rig.is_large() || held <= 2 * COPY_BYTES {
            continue;
        }
        moved += 1;
        let places = Arc::new(LargePipes::new(LARGE as u32, 1));
        let mut there: Pipes<SimOs> = Pipes::at_most(8, Arc::clone(&places));
        let (pipes, scratch, step_bytes) = (&mut rig.pipes, &mut rig.scratch, rig.step_bytes);
        let mut tools = Tools { os: &mut rig.os, pipes, scratch, step_bytes, spliced: 0 };
        rig.way.empty_pipe(&mut tools).unwrap();
        assert_eq!((rig.way.held(), rig.pipes.in_use(), rig.pipes.large()), (held, 0, 0));
        assert_eq!(rig.places.held(), 1, "the bytes have the place of the pipe");

        rig.way = Direction::arrived(&rig.way.facts(), rig.way.rest().to_vec());
        assert_eq!(rig.places.held(), 0);
        rig.way.charge_rest(&mut there);
        rig.way.charge_rest(&mut there);
        assert_eq!(places.held(), 1);
        assert!(!places.reserve(), "no pipe is made large instead");
        rig.way.try_again();
        while rig.heard < STREAM {
            rig.hear(STREAM);
            while rig.pump() == Pumped::Again {}
        }
        assert_eq!(places.held(), 0);
    }
    assert!(moved > 0, "no large pipe was full");
}
