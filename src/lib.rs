//! sessile: a layer-4 TCP/TLS passthrough balancer whose first promise is that a client stays where it settled.
//!
//! # Map
//!
//! A file imports only from lower floors or from inside its own folder (`tests/it/floors.rs` holds it).
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 5 process | start, reload, stop, commands | [`cli`], [`server`] |
//! | 4 flow | who does what in which order | [`splicer`] (`mod`, `worker`, `flow`, `preread`, `read_ahead`, `connect`, `ending`), [`terminate`] (`mod`, `conversation`), [`admin`] |
//! | 3 stages | one step each, own deadline | `splicer/{os,relay,pipe,timer,slab,inbox}`, `terminate/{stream,relay,exchange,connect,kept}`, [`probe`], [`store`] |
//! | 2 state | shared, swapped or counted | [`snapshot`], [`limits`], [`admission`], [`metrics`], [`access_log`], [`socket`], [`tls`], [`connection`], [`clock`], [`plan`] |
//! | 1 rules | pure decisions | [`route`], [`attempt`], [`http`], [`pool`], [`placement`], [`sticky`], [`client_hello`], [`proxy_protocol`] |
//! | 0 words | plain data | [`config`], [`server_name`], [`outcome`], [`fault`], [`counters`], [`progress`] |
//!
//! Floors 0 and 1 name neither tokio, nor a socket, nor a clock: time and bytes are arguments.

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod attempt;
pub mod cli;
pub mod client_hello;
pub mod clock;
pub mod config;
pub mod connection;
pub mod counters;
pub mod fault;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod outcome;
pub mod placement;
pub mod plan;
pub mod pool;
pub mod probe;
pub mod progress;
pub mod proxy_protocol;
pub mod route;
pub mod server;
pub mod server_name;
pub mod snapshot;
pub mod socket;
pub mod splicer;
pub mod sticky;
pub mod store;
pub mod terminate;
pub mod tls;
