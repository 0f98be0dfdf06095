//! `sessile explain`: where clients go, from the configuration alone.
//!
//! Reads clients and prints one explanation for each; [`Explainer`] makes them. Connects nowhere and needs no running
//! process, so health is what `--down` says. Invariant: explanations come in the order of the clients, and memory does
//! not grow with their number.

mod explainer;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use self::explainer::{Explainer, server_name};
use super::own_places::DEFAULT_FILE;
use super::{CommandError, load, print_json};
use crate::plan::Explanation;
use crate::server_name::ServerName;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// Configuration file to explain
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Client address, with or without a port; may be repeated. Without this option, or with `-`, clients are read from
    /// standard input, one `ADDR [SNI]` a line
    #[arg(long, value_name = "ADDR")]
    client: Vec<String>,
    /// Listener that the clients connect to; required when the file has several
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Server name (SNI) in the clients' hello
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Protocol (ALPN) that the clients offer; may be repeated
    #[arg(long, value_name = "PROTO")]
    alpn: Vec<String>,
    /// TLV in the clients' PROXY header, for example `0xE0=value`; may be repeated
    #[arg(long, value_name = "0xNN=VALUE")]
    tlv: Vec<String>,
    /// Cookie in the clients' requests; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    cookie: Vec<String>,
    /// Header field in the clients' requests; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Backend that is down, in one pool or in every pool that has the name; may be repeated
    #[arg(long, value_name = "[POOL/]NAME")]
    down: Vec<String>,
    /// Print one JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Reads clients and prints an explanation for each.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let config = load::load(&self.config)?.config;
        let explainer = Explainer::new(self, &config)?;
        let given: Vec<_> = self.client.iter().filter(|client| *client != "-").collect();
        for client in &given {
            self.print(out, &explainer.explain(&ExplainedClient::parse(client, explainer.sni())?))?;
        }
        if given.is_empty() || given.len() < self.client.len() {
            self.explain_lines(&explainer, io::stdin().lock(), out)?;
        }
        Ok(0)
    }

    /// Explains one client a line.
    fn explain_lines(
        &self,
        explainer: &Explainer<'_>,
        input: impl Read,
        out: &mut impl Write,
    ) -> Result<(), CommandError> {
        let mut input = BufReader::new(input);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if input.read_line(&mut line).map_err(|e| CommandError::Usage(format!("standard input: {e}")))? == 0 {
                break;
            }
            if !line.trim().is_empty() {
                let client = ExplainedClient::parse(line.trim(), explainer.sni())
                    .map_err(|failure| CommandError::Usage(format!("line {number}: {failure}")))?;
                self.print(out, &explainer.explain(&client))?;
            }
            if input.buffer().is_empty() {
                // A program that writes the next client may wait for this explanation.
                out.flush()?;
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write, report: &ExplainReport<'_>) -> Result<(), CommandError> {
        if self.json {
            return print_json(out, report);
        }
        write!(out, "client {} at listener {}", report.client, report.listener)?;
        if let Some(sni) = &report.sni {
            write!(out, " for {sni}")?;
        }
        if let Some(cookie) = report.cookie {
            write!(out, " with a cookie that is {cookie}")?;
        }
        match &report.explanation {
            Some(explanation) => writeln!(out, ": {explanation}")?,
            None => writeln!(out, ": no route matches and there is no default pool")?,
        }
        Ok(())
    }
}

/// A client to explain.
#[derive(Debug, PartialEq, Eq)]
struct ExplainedClient {
    source: IpAddr,
    sni: Option<ServerName>,
}

impl ExplainedClient {
    /// Reads `ADDR [SNI]`; `sni` is the server name of lines without one.
    fn parse(text: &str, sni: Option<&ServerName>) -> Result<Self, CommandError> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let source = address.parse().or_else(|_| address.parse().map(|address: SocketAddr| address.ip()));
        let source = source.map_err(|_| CommandError::Usage(format!("client {address:?} is not an address")))?;
        let sni = words.next().map(server_name).transpose()?.or_else(|| sni.cloned());
        match words.next() {
            Some(more) => Err(CommandError::Usage(format!("client {address}: {more:?} follows the server name"))),
            None => Ok(Self { source: source.to_canonical(), sni }),
        }
    }
}

/// What is printed about one client; `refused` is the ending of a connection that no backend gets.
#[derive(Serialize)]
struct ExplainReport<'a> {
    client: IpAddr,
    listener: &'a str,
    sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<&'static str>,
    refused: Option<&'static str>,
    #[serde(flatten)]
    explanation: Option<Explanation>,
}
