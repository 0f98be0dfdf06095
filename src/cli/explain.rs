//! `sessile explain`: where clients go, from the configuration alone or, with `--live`, by the running process.
//!
//! Reads clients and prints one explanation for each; [`Explainer`] or the process makes them. Without `--live` it
//! connects nowhere, and health is what `--down` says; the first line of the text says so. Invariant: explanations come
//! in the order of the clients, and memory does not grow with their number.

mod explainer;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use form_urlencoded::Serializer;

use self::explainer::Explainer;
use super::load::{self, RunningProcess};
use super::{CommandError, client, print_json};
use crate::plan::{ClientReport, Question, WrittenTraits};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// Ask the running process: health, drains, stick table, shared store and full backends as they are now
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    running: RunningProcess,
    /// Client address, with or without a port; may be repeated. Without this option, or with `-`, clients are read from
    /// standard input, one `ADDR [SNI]` a line
    #[arg(long, value_name = "ADDR")]
    client: Vec<String>,
    /// Listener that the clients connect to; required where there are several
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Server name (SNI) in the clients' hello
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Host of the clients' requests; the server name, too, unless --sni names one
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Path of the clients' requests, with its query
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Method of the clients' requests
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
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
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// Subject of the clients' verified certificate, as the access log has it
    #[arg(long, value_name = "SUBJECT")]
    certificate: Option<String>,
    /// Backend that is down, in one pool or in every pool that has the name; may be repeated
    #[arg(long, value_name = "[POOL/]NAME")]
    down: Vec<String>,
    /// Print one JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// Answers questions about clients.
#[derive(Clone, Copy)]
enum Answers<'a> {
    OfFile(&'a Explainer<'a>),
    OfProcess { socket: &'a Path, question: &'a Question },
}

impl Explain {
    /// Reads clients and prints an explanation for each.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let question = self.question();
        if self.live {
            let socket = self.running.socket()?;
            self.explain_all(Answers::OfProcess { socket: &socket, question: &question }, out)?;
        } else {
            let file = self.running.file_alone("explain without --live")?;
            let config = load::load(file)?.config;
            self.explain_all(Answers::OfFile(&Explainer::new(&question, &config)?), out)?;
        }
        Ok(0)
    }

    /// A question about a client that is not named yet.
    fn question(&self) -> Question {
        let traits = WrittenTraits {
            sni: self.sni.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            alpn: self.alpn.clone(),
            tlv: self.tlv.clone(),
            cookie: self.cookie.clone(),
            header: self.header.clone(),
            certificate: self.certificate.clone(),
        };
        Question { client: String::new(), listener: self.listener.clone(), traits, down: self.down.clone() }
    }

    fn explain_all(&self, answers: Answers<'_>, out: &mut impl Write) -> Result<(), CommandError> {
        if !self.json {
            let source = match answers {
                Answers::OfProcess { .. } => "live: as the running process decides now",
                Answers::OfFile(_) => "offline: from the file alone; health, stick table and drains are not known",
            };
            writeln!(out, "{source}")?;
        }
        let given: Vec<_> = self.client.iter().filter(|client| *client != "-").collect();
        for client in &given {
            self.print(out, &answers.explain(client)?)?;
        }
        if given.is_empty() || given.len() < self.client.len() {
            self.explain_lines(answers, io::stdin().lock(), out)?;
        }
        Ok(())
    }

    /// Explains one client a line.
    fn explain_lines(&self, answers: Answers<'_>, input: impl Read, out: &mut impl Write) -> Result<(), CommandError> {
        let mut input = BufReader::new(input);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if input.read_line(&mut line).map_err(|e| CommandError::Usage(format!("standard input: {e}")))? == 0 {
                break;
            }
            if !line.trim().is_empty() {
                let report = answers.explain(line.trim()).map_err(|failure| match failure {
                    CommandError::Usage(what) => CommandError::Usage(format!("line {number}: {what}")),
                    other => other,
                })?;
                self.print(out, &report)?;
            }
            if input.buffer().is_empty() {
                // A program that writes the next client may wait for this explanation.
                out.flush()?;
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write, report: &ClientReport) -> Result<(), CommandError> {
        if self.json {
            return print_json(out, report);
        }
        out.write_all(text::of(report).as_bytes())?;
        Ok(())
    }
}

impl Answers<'_> {
    /// The answer about a client that is written as `ADDR [SNI]`.
    fn explain(self, client: &str) -> Result<ClientReport, CommandError> {
        match self {
            Self::OfFile(explainer) => explainer.explain(client),
            Self::OfProcess { socket, question } => {
                let question = Question { client: client.to_owned(), ..question.clone() };
                let parameters = Serializer::new(String::new()).extend_pairs(question.parameters()).finish();
                let answer = client::request(socket, "GET", &format!("/explain?{parameters}"))?;
                match answer.code {
                    400 => Err(CommandError::Usage(answer.body.trim_end().to_owned())),
                    404 => Err(CommandError::Internal("the running process is older and explains nothing".into())),
                    _ => answer.json(&[200]),
                }
            }
        }
    }
}
