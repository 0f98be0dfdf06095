//! The product through its front door: the real binary, real sockets, hostile clients and backends.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod admin;
mod balance;
mod certificates;
mod demo;
mod explain;
mod faults;
mod floors;
mod generations;
mod idle;
mod leaks;
mod plan;
mod reload;
mod reload_keeps;
mod services;
mod smoke;
mod stick_table;
mod sticky;
mod stop;
mod support;
mod systemd;
mod terminate;
mod watch;
mod websocket;
