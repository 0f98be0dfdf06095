//! The product through its front door: the real binary, real sockets, hostile clients and backends.

mod floors;
mod generations;
mod idle;
mod leftovers;
mod reload;
mod smoke;
mod stop;
mod support;
mod watch;
