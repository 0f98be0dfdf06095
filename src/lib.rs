//! sessile: a layer-4 TCP/TLS passthrough balancer whose first promise is that a client stays where it settled.
//!
//! # Map
//!
//! A module imports only from lower floors (`tests/it/floors.rs` reads this table and the `use` lines).
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 10 | commands | [`cli`] |
//! | 9 | the process: start, reload, stop | [`server`] |
//! | 8 | what serves connections, and what operators use | [`admin`], [`splicer`], [`terminate`] |
//! | 7 | over all connections: commands to their threads, forecasts of a change | [`plan`], [`threads`] |
//! | 6 | a connection, and what several instances share | [`connection`], [`store`] |
//! | 5 | one generation of everything configured, and checks of its backends | [`probe`], [`snapshot`] |
//! | 4 | which backend a key gets | [`pool`] |
//! | 3 | keys, cookies and stick tables; TLS; limits of one connection | [`limits`], [`sticky`], [`tls`] |
//! | 2 | one rule or one resource each | [`access_log`], [`admission`], [`attempt`], [`metrics`], [`placement`], [`proxy_protocol`], [`route`], [`socket`] |
//! | 1 | plain data and parsers | [`client_hello`], [`config`], [`counters`] |
//! | 0 | plain words | [`clock`], [`http`], [`outcome`], [`server_name`] |
//!
//! [`attempt`], [`client_hello`], [`config`], [`counters`], [`http`], [`outcome`], [`placement`], [`pool`],
//! [`proxy_protocol`], [`route`], [`server_name`] and [`sticky`] name no tokio, no socket and no clock: time and
//! bytes are arguments.
//!
//! # Lexicon
//!
//! | word | what it is |
//! |---|---|
//! | listener | a named set of addresses that clients connect to, with its routes |
//! | connection | one client connection, from accept to its outcome |
//! | conversation | a connection with TLS or HTTP that ends here; the runtime beside its worker serves it |
//! | request | one HTTP request of a conversation, with its response |
//! | route | a rule of a listener that sends a connection to a pool |
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
pub mod threads;
pub mod tls;
