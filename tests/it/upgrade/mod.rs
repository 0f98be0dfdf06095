//! Upgrades: another binary takes over from the process that serves.
//!
//! `pairs`: established connections and new clients while processes follow each other. `refused`: what is wrong with
//! the new process is named, and the old one goes on. `deaths`: either process is killed on the way.

mod deaths;
mod pairs;
mod refused;
mod traffic;
