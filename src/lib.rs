//! sessile: a layer-4 TCP/TLS passthrough balancer; its first promise is that a client stays where it settled.
//!
//! # Map
//!
//! A file imports only from lower floors or from inside its own folder; modules of one floor do not import each other,
//! and no file depends on itself by way of others (`tests/it/shape` reads this table).
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 13 commands | the command line | [`cli`] |
//! | 12 process | start, reload, stop | [`server`] |
//! | 11 flow | connections from accept to end, and the interface of operators | [`splicer`], [`terminate`], [`admin`] |
//! | 10 over all | commands to all threads, forecasts of a change | [`threads`], [`plan`] |
//! | 9 shared | the model of a connection; learned cookies of other instances | [`connection`], [`store`] |
//! | 8 snapshot | everything configured that a connection reads | [`snapshot`] |
//! | 7 beside | limits of one connection, health checks, sources of backends | [`limits`], [`probe`], [`discovery`] |
//! | 6 host | sockets, clocks, permits, figures, events and log lines; work that may never end | [`socket`], [`clock`], [`admission`], [`metrics`], [`access_log`], [`events`], [`client_history`], [`detached`] |
//! | 5 attempt | what a failed connect means | [`attempt`] |
//! | 4 pool | the pool of a split; the pick: range, cookie, stick table, connection, placement, last resort | [`pool`], [`split`] |
//! | 3 sticky | keys, cookies, the stick table; certificates and tickets; answers of routes | [`sticky`], [`tls`], [`answers`] |
//! | 2 placement | key to backend; routes; PROXY headers | [`placement`], [`route`], [`proxy_protocol`] |
//! | 1 formats | the configuration, HTTP/1, the ClientHello; files as a whole | [`config`], [`http`], [`client_hello`], [`regular_file`] |
//! | 0 words | plain data | [`alert`], [`counters`], [`fault`], [`log_field`], [`order`], [`outcome`], [`progress`], [`remote_text`], [`server_name`], [`waiting`] |
//!
//! Floors 0 to 5 name neither tokio, nor a socket, nor a clock: time and bytes are arguments.
//!
//! # Lexicon
//!
//! | word | what it is |
//! |---|---|
//! | listener | a named set of addresses that clients connect to, with its routes |
//! | connection | one client connection, from accept to its outcome |
//! | conversation | a connection with TLS or HTTP that ends here; the runtime beside its worker serves it |
//! | request | one HTTP request of a conversation, with its response |
//! | route | a rule of a listener that sends a connection or a request to a pool or a split, or answers it |
//! | split | pools that share their new clients by weight, each of which keeps its own |
//! | pool | backends that serve the same, with the rule that picks among them |
//! | backend | one server of a pool, known by its name |
//! | key | what identifies a client: address, server name, TLV, cookie |
//! | placement | the function that maps a key to a backend without memory |
//! | stick table | the memory of a pool: keys and their backends, with a fixed size |
//! | entry | a key in a stick table, with its backend and when it was last seen |
//! | pick | the backend chosen for one connection or request, with the reason |
//! | lease | counts one connection at a backend for as long as it is open |
//! | permit | counts one connection of the process, its listener and its source for as long as it is open |
//! | worker | a thread that accepts connections and relays bytes without reading them |
//! | runtime | the tokio thread beside a worker that serves its conversations |
//! | snapshot | one generation of everything configured; a reload replaces it whole |
//! | drain | the time in which a backend, a listener or the process takes no new clients and serves those it has |
//! | outcome | how a connection ended, from a closed list: metric label, log word and fault |
//! | access log | one line per connection and per request on standard output |
//! | event | something that happened to the process or a part of it, not to one connection |

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod alert;
pub mod answers;
pub mod attempt;
pub mod cli;
pub mod client_hello;
pub mod client_history;
pub mod clock;
pub mod config;
pub mod connection;
pub mod counters;
pub mod detached;
pub mod discovery;
pub mod events;
pub mod fault;
pub mod http;
pub mod limits;
pub mod log_field;
pub mod metrics;
pub mod order;
pub mod outcome;
pub mod placement;
pub mod plan;
pub mod pool;
pub mod probe;
pub mod progress;
pub mod proxy_protocol;
#[cfg(test)]
mod random;
pub mod regular_file;
pub mod remote_text;
pub mod route;
pub mod server;
pub mod server_name;
pub mod snapshot;
pub mod socket;
pub mod splicer;
pub mod split;
pub mod sticky;
pub mod store;
pub mod terminate;
pub mod threads;
pub mod tls;
pub mod waiting;
