//! Upgrades: another binary takes over from the process that serves.
//!
//! `pairs`: established connections and new clients while processes follow each other. `refused`: what is wrong with
//! the new process is named, and the old one goes on. `deaths`: either process is killed on the way. `stored`: a restart
//! by a service manager (`keeper`) that keeps a descriptor while no process runs.

mod deaths;
mod keeper;
mod pairs;
mod refused;
mod stored;
mod traffic;
