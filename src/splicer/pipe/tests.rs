//! Large and small pipes over the imitated kernel.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::splicer::sim::kernel::Kernel;
use crate::splicer::sim::os::{SimOs, SimPipe};

const LARGE: u32 = 1 << 20;

fn kernel() -> (SimOs, Rc<RefCell<Kernel>>) {
    let mut kernel = Kernel::new(7);
    kernel.scripted = true;
    let kernel = Rc::new(RefCell::new(kernel));
    (SimOs(Rc::clone(&kernel), 0), kernel)
}

/// The imitated kernel has only a tiny pipe at times, and then is not asked for a while.
fn take(pipes: &mut Pipes<SimOs>, os: &mut SimOs, large: bool) -> Filled<SimPipe> {
    let taken = std::iter::repeat_with(|| pipes.take(os, large)).take(10 * REFUSALS_SKIPPED as usize);
    taken.flatten().next().expect("a pipe")
}

#[test]
fn the_places_of_large_pipes_are_shared_and_come_back_when_these_are_closed() {
    let ((mut os, kernel), places) = (kernel(), Arc::new(LargePipes::new(LARGE, 1)));
    let mut workers = [Pipes::at_most(8, Arc::clone(&places)), Pipes::at_most(8, Arc::clone(&places))];
    let [one, other] = &mut workers;
    let first = take(one, &mut os, true);
    assert_eq!((first.is_large(), first.capacity, places.held(), kernel.borrow().grown), (true, LARGE, 1, 1));
    let second = take(other, &mut os, true);
    assert!(!second.is_large() && other.denied() > 0, "the only place is taken");
    assert_eq!(second.capacity as usize, COPY_BYTES);
    other.give(second);

    one.give(first);
    assert_eq!((places.held(), one.large(), one.in_use()), (1, 1, 0), "it is kept");
    one.trim();
    assert_eq!((places.held(), one.large(), kernel.borrow().grown), (0, 0, 0));
    let mut third = take(other, &mut os, true);
    assert!(third.is_large());
    // A pipe with bytes in it is closed.
    third.held = 1;
    other.give(third);
    assert_eq!((places.held(), other.large(), kernel.borrow().grown), (0, 0, 0));
}

#[test]
fn a_pipe_that_the_kernel_does_not_let_grow_stays_small_and_it_is_asked_again_later() {
    let ((mut os, kernel), places) = (kernel(), Arc::new(LargePipes::new(LARGE, 4)));
    let mut pipes = Pipes::at_most(8, Arc::clone(&places));
    let pipe = take(&mut pipes, &mut os, false);
    pipes.give(pipe);
    kernel.borrow_mut().failures = 1024;
    let small = take(&mut pipes, &mut os, true);
    assert_eq!((small.is_large(), places.held(), pipes.large(), pipes.denied()), (false, 0, 0, 1));
    pipes.give(small);
    kernel.borrow_mut().failures = 0;
    let calls = kernel.borrow().calls;
    for _ in 0..REFUSALS_SKIPPED {
        let small = pipes.take(&mut os, true).unwrap();
        assert!(!small.is_large());
        pipes.give(small);
    }
    assert_eq!(kernel.borrow().calls, calls, "the kernel is left alone for a while");
    assert!(pipes.take(&mut os, true).unwrap().is_large());
}

#[test]
fn free_large_pipes_are_few_and_make_way_for_small_ones() {
    let ((mut os, _), places) = (kernel(), Arc::new(LargePipes::new(LARGE, 64)));
    let mut pipes = Pipes::at_most(LARGE_POOLED_MAX + 2, Arc::clone(&places));
    let taken: Vec<_> = (0..LARGE_POOLED_MAX + 2).map(|_| take(&mut pipes, &mut os, true)).collect();
    assert!(taken.iter().all(Filled::is_large));
    assert!(pipes.take(&mut os, false).is_none(), "no descriptor is left for another");
    taken.into_iter().for_each(|pipe| pipes.give(pipe));
    assert_eq!((pipes.large(), places.held()), (LARGE_POOLED_MAX, LARGE_POOLED_MAX));
    let small: Vec<_> = (0..LARGE_POOLED_MAX + 2).map(|_| take(&mut pipes, &mut os, false)).collect();
    assert!(small.iter().all(|pipe| !pipe.is_large()));
    assert_eq!((pipes.count(), pipes.large(), places.held()), (LARGE_POOLED_MAX + 2, 0, 0));
}
