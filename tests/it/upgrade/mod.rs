//! Upgrades: another binary takes over from the process that serves.
//!
//! `full_load`: processes follow each other while everything goes on, as large as the machine allows. `pairs`: what moves,
//! one by one. `refused`: what is wrong with the new process is named, and the old one goes on. `deaths`: either process
//! is killed on the way. `ends`: signals and failures at the ends of an upgrade, and what the old process still does;
//! `stand_in`: programs in the place of a process. `sockets`: listening sockets that have other options, addresses or
//! listeners in the new file. `stored`: a restart by a service manager (`keeper`) that keeps a descriptor while no process
//! runs. `streams` and `traffic` are clients that notice what an upgrade does to them.

mod deaths;
mod ends;
mod full_load;
mod keeper;
mod pairs;
mod refused;
mod sockets;
mod stand_in;
mod stored;
mod streams;
mod traffic;
