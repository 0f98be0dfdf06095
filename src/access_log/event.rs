//! [`MessageFormat`]: a message about the process as a line of the schema.
//!
//! Chooses no level and writes nothing. Invariant: a message is one line of the format in force, also if that changes
//! while the process runs.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line;
use super::schema::unix_us;

/// Messages are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Sets the format of messages from now on.
pub fn set_message_format(json: bool) {
    JSON.store(json, Relaxed);
}

/// Writes messages in the format in force.
#[derive(Debug, Clone, Copy)]
pub struct MessageFormat;

impl<S, N> FormatEvent<S, N> for MessageFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = EventText::default();
        event.record(&mut text);
        let mut line = String::with_capacity(text.message.len() + 80);
        let message = text.message + &text.more;
        line::write_message(&mut line, word(*event.metadata().level()), &message, JSON.load(Relaxed), unix_us());
        out.write_str(&line)
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The text of an event: its message, and behind that what a library adds in fields of its own.
#[derive(Default)]
struct EventText {
    message: String,
    more: String,
}

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.more, ", {name} {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_message_is_a_line_of_the_schema_in_the_format_in_force() {
        #[derive(Clone, Default)]
        struct Output(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Output {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(Level::DEBUG)
            .event_format(MessageFormat)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("two\nlines and \"quotes\"");
            set_message_format(true);
            tracing::debug!(place = 7, "from a library");
            set_message_format(false);
        });
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("time=20"), "{text}");
        assert!(lines[0].ends_with(" level=warn msg=\"two\\nlines and \\\"quotes\\\"\""), "{text}");
        let json: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&json["level"], &json["msg"]), (&"debug".into(), &"from a library, place 7".into()));
    }
}
