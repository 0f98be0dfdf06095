//! `sessile backend add`, `remove`, `weight` and `address`: change the backends of the running process.
//!
//! Changes no file (`sessile save` prints one). Invariant: the exit code is 0 exactly if the process has what was ordered.

use std::io::Write;

use super::client::query_value;
use super::load::RunningProcess;
use super::order::{BackendName, send};
use super::{CommandError, plan};

/// Arguments of `sessile backend`.
#[derive(Debug, clap::Args)]
pub(super) struct BackendArgs {
    #[command(subcommand)]
    command: BackendCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BackendCommand {
    /// Add a backend to a pool; it stays until it is removed, or until the file names it.
    Add {
        #[command(flatten)]
        backend: BackendName,
        /// Address of the backend: IP:PORT or unix:/PATH.
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// Weight, 0 to 256.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=256), default_value_t = 1)]
        weight: u16,
        /// Location, outermost level first: dc1/host3.
        #[arg(long, value_name = "LOCATION")]
        location: Option<String>,
        /// Most connections at the same time.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        max_connections: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Remove a backend: no new clients; once its drain is over, or no client needs it, it leaves.
    Remove {
        #[command(flatten)]
        backend: BackendName,
        /// Remove it at once: its known clients move; open connections stay until they end.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        how: How,
    },
    /// Give a backend another weight, until the file changes the weight.
    Weight {
        #[command(flatten)]
        backend: BackendName,
        /// Weight, 0 to 256, or "default": as configured.
        #[arg(value_name = "N", value_parser = weight)]
        weight: OrderedValue<u16>,
        #[command(flatten)]
        how: How,
    },
    /// Give a backend another address, until the file changes the address; open connections stay at the old one.
    Address {
        #[command(flatten)]
        backend: BackendName,
        /// IP:PORT, unix:/PATH, or "default": as configured.
        #[arg(value_name = "ADDRESS", value_parser = address)]
        address: OrderedValue<String>,
        #[command(flatten)]
        how: How,
    },
}

/// How an order is given.
#[derive(Debug, clap::Args)]
struct How {
    #[command(flatten)]
    running: RunningProcess,
    /// Refuse the order if more than this share of the pool's known clients would move: "5%" or "0.05".
    #[arg(long, value_name = "SHARE", value_parser = plan::share)]
    max_move: Option<f64>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// A value, or the word `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OrderedValue<T> {
    /// As configured.
    Default,
    /// This value.
    Value(T),
}

fn weight(written: &str) -> Result<OrderedValue<u16>, String> {
    match written {
        "default" => Ok(OrderedValue::Default),
        number => {
            let weight = number.parse().ok().filter(|weight| *weight <= 256);
            weight.map(OrderedValue::Value).ok_or_else(|| "not \"default\", nor between 0 and 256".to_owned())
        }
    }
}

fn address(written: &str) -> Result<OrderedValue<String>, String> {
    Ok(if written == "default" { OrderedValue::Default } else { OrderedValue::Value(written.to_owned()) })
}

impl BackendArgs {
    /// Sends the order and prints the response.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let (backend, order, values, how) = match &self.command {
            BackendCommand::Add { backend, address, weight, location, max_connections, how } => {
                let location = location.as_ref().map(|location| ("location", location.clone()));
                let most = max_connections.map(|most| ("max_connections", most.to_string()));
                let always = [("address", address.clone()), ("weight", weight.to_string())];
                (backend, "add", always.into_iter().chain(location).chain(most).collect(), how)
            }
            BackendCommand::Remove { backend, now, how } => {
                (backend, "remove", now.then(|| ("now", "true".to_owned())).into_iter().collect(), how)
            }
            BackendCommand::Weight { backend, weight, how } => (backend, "weight", value_of("weight", weight), how),
            BackendCommand::Address { backend, address, how } => {
                (backend, "address", value_of("address", address), how)
            }
        };
        let values = values.into_iter().chain(how.max_move.map(|most| ("max_move", most.to_string())));
        let query: Vec<_> = values.map(|(key, value)| format!("{key}={}", query_value(&value))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        send(&how.running, backend, (order, &query), how.json, out)
    }
}

/// The value as a query has it.
fn value_of<T: ToString>(key: &'static str, given: &OrderedValue<T>) -> Vec<(&'static str, String)> {
    match given {
        OrderedValue::Default => Vec::new(),
        OrderedValue::Value(value) => vec![(key, value.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parse;

    #[test]
    fn orders_are_read_and_wrong_ones_refused() {
        for right in [
            "add web/d 10.0.0.9:80",
            "add web/d [::1]:80 --weight 0 --location dc1/h2 --max-connections 5 --max-move 5% --json",
            "remove web/a",
            "remove web/a --now",
            "weight web/a 256",
            "weight web/a default",
            "address web/a unix:/run/a.sock",
            "address web/a default -c f.toml",
        ] {
            assert!(matches!(parse(&format!("sessile backend {right}")), Ok(Command::Backend(_))), "{right}");
        }
        for wrong in [
            "",
            "add web/d",
            "add web/d 10.0.0.9:80 --weight 257",
            "add web/d 10.0.0.9:80 --max-connections 0",
            "remove",
            "weight web/a",
            "weight web/a 257",
            "weight web/a heavy",
            "address web/a",
            "weight web/a 1 --max-move 101%",
        ] {
            assert!(parse(&format!("sessile backend {wrong}")).is_err(), "{wrong}");
        }
    }
}
