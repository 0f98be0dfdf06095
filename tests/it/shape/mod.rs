//! The shape of the sources and the words of the texts: what no compiler checks.
//!
//! `floors`: imports follow the map in `src/lib.rs`. `cycles`: files of `src/` do not depend on each other in a circle.
//! `sizes`: lines of files and functions, names of types. `words`: comments, help, README and example configurations.
//! These tests read the texts of the tree and run the binary only for its help. Invariant: no test here has a list of
//! exceptions.

mod cycles;
mod floors;
mod names;
mod sizes;
mod source;
mod words;
