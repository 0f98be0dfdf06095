//! Upgrades: another binary takes over from the process that serves.
//!
//! `pairs`: established connections and new clients while processes follow each other. `refused`: what is wrong with
//! the new process is named, and the old one goes on. `deaths`: either process is killed on the way. `sockets`: listening
//! sockets that have other options, addresses or listeners in the new file.

mod deaths;
mod pairs;
mod refused;
mod sockets;
mod traffic;
