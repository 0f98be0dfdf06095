//! Upgrades: another binary takes over from the process that serves.
//!
//! `pairs`: established connections and new clients while processes follow each other. `refused`: what is wrong with
//! the new process is named, and the old one goes on. `deaths`: either process is killed on the way. `ends`: signals and
//! failures at the ends of an upgrade, and what the old process still does; `stand_in`: programs in the place of a process.

mod deaths;
mod ends;
mod pairs;
mod refused;
mod stand_in;
mod traffic;
