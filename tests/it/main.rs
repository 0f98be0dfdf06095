//! The product through its front door: the real binary, real sockets, hostile clients and backends.

mod faults;
mod floors;
mod smoke;
mod support;
