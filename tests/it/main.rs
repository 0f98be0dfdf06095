//! The product through its front door: the real binary, real sockets, hostile clients and backends.

mod explain;
mod floors;
mod services;
mod smoke;
mod support;
mod websocket;
