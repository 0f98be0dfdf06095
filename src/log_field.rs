//! [`LogField`]: the one table of all fields of the log, for the lines, their choice in the configuration and the manual.
//!
//! Formats nothing. Invariant: a line has its fields in the order of this table; a name has one meaning in every line.

/// The lines that have a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InLines {
    /// Every line of both streams.
    Every,
    /// Messages about the process.
    Message,
    /// Lines of connections and of requests.
    Both,
    /// Lines of connections.
    Connection,
    /// Lines of requests.
    Request,
}

/// The form of a value. In text every value is characters; JSON keeps the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueForm {
    /// A string.
    Text,
    /// A whole number.
    Number,
    /// `true`; the field is left out otherwise.
    Flag,
}

impl ValueForm {
    /// The word of the manual for the form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Flag => "true",
        }
    }
}

macro_rules! fields {
    ($($name:ident = $word:literal in $lines:ident, $form:ident, $meaning:literal;)+) => {
        /// A field of the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum LogField { $(#[doc = $meaning] $name,)+ }

        impl LogField {
            /// Every field, in the order of a line.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name in a line and in the configuration.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The lines that have the field.
            pub fn lines(self) -> InLines {
                match self { $(Self::$name => InLines::$lines,)+ }
            }

            /// The form of the value.
            pub fn form(self) -> ValueForm {
                match self { $(Self::$name => ValueForm::$form,)+ }
            }

            /// What the value is, as the manual says it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

fields! {
    Time = "time" in Every, Text, "when the line was written: UTC, RFC 3339, milliseconds";
    Level = "level" in Every, Text, "`error`, `warn`, `info` or `debug`; a connection or request is `info`";
    Msg = "msg" in Message, Text, "the message, one sentence";
    Kind = "kind" in Both, Text, "`connection` or `request`";
    Started = "started" in Both, Text, "when the connection was accepted, or the head of the request was complete";
    Request = "request" in Request, Text, "id of the request, 32 hexadecimal digits, as in the X-Request-Id of a reply";
    RequestId = "request_id" in Request, Text, "id that a trusted proxy has given the request, where `request_id` takes it";
    Id = "id" in Both, Number, "number of the connection in this process, as in `/connections`";
    Listener = "listener" in Both, Text, "name of the listener";
    Client = "client" in Both, Text, "address and port of the client, announced or seen; `unix` for a unix peer";
    Peer = "peer" in Connection, Text, "address of the TCP peer, where the PROXY protocol announced another client";
    Sni = "sni" in Connection, Text, "server name of the ClientHello, also one that is no host name";
    Ech = "ech" in Connection, Flag, "the hello offers ECH, and `sni` is its outer name";
    Method = "method" in Request, Text, "method of the request";
    Host = "host" in Request, Text, "host that the request is for";
    Path = "path" in Request, Text, "path without the query";
    UserAgent = "user_agent" in Request, Text, "User-Agent of the request; only if `log.fields` names it";
    Session = "session" in Request, Text, "hash of the session cookie: 16 hexadecimal digits of its SHA-256";
    Status = "status" in Request, Number, "status of the response; absent if none was begun";
    Route = "route" in Request, Number, "number of the route in its listener, from 1; absent if none decided";
    Split = "split" in Both, Text, "name of the split that the route leads to";
    SplitBy = "split_by" in Both, Text, "what chose the pool: `cookie`, `connection`, `stick_table`, `key`, `weight`";
    Pool = "pool" in Both, Text, "name of the pool";
    Range = "range" in Connection, Text, "named range of the pool that the client is in";
    Backend = "backend" in Both, Text, "name of the backend that was tried last";
    Reason = "reason" in Both, Text, "what chose it: `cookie`, `stick_table`, `connection`, `placement`, `last_resort`";
    Cookie = "cookie" in Request, Text, "what the cookie was worth: `fresh`, `due`, `expired`, `forged`, ...";
    Reused = "reused" in Request, Flag, "over a connection to the backend that was there";
    Attempts = "attempts" in Connection, Number, "connect attempts that were begun";
    ConnectUs = "connect_us" in Connection, Number, "microseconds that the successful attempt took";
    FirstByteUs = "first_byte_us" in Request, Number, "microseconds from `started` to the first byte of the response";
    DurationUs = "duration_us" in Both, Number, "microseconds from `started` to the end";
    BytesUp = "bytes_up" in Both, Number, "bytes from the client to the backend";
    BytesDown = "bytes_down" in Both, Number, "bytes to the client";
    Ended = "ended" in Both, Text, "how it ended, a word of the list below";
    Fault = "fault" in Both, Text, "side at fault: `none`, `client`, `backend`, `limit`, `us`";
    Refused = "refused" in Request, Text, "rule by which the request or its response was refused, a word of the list below";
    Tls = "tls" in Connection, Text, "version of TLS, as `TLSv1.3`, where it ended here";
    Cipher = "cipher" in Connection, Text, "cipher suite, as `TLS_AES_128_GCM_SHA256`";
    Resumed = "resumed" in Connection, Flag, "the TLS session was begun earlier";
    Subject = "subject" in Both, Text, "subject of the client's verified certificate";
    Alert = "alert" in Connection, Text, "alert by which TLS failed, as `sent:handshake_failure` or `received:unknown_ca`";
    Moved = "moved" in Both, Text, "why the client lost the backend that it had; in one line for each move";
    From = "from" in Both, Text, "the backend that it had; absent if the name is not known any more";
    Sample = "sample" in Both, Number, "the line stands for so many of its kind: `log.sample`";
}

/// A choice of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFields(u64);

impl LogFields {
    /// Every field.
    pub const EVERY: Self = Self(u64::MAX);
    /// What the configuration calls the fields that lines have by default.
    pub const DEFAULT_WORD: &'static str = "default";

    /// True if lines have the field.
    #[inline]
    pub fn has(self, field: LogField) -> bool {
        self.0 & 1 << field as u64 != 0
    }

    /// The same choice with one more field.
    #[must_use]
    pub fn with(self, field: LogField) -> Self {
        Self(self.0 | 1 << field as u64)
    }

    /// The fields without which a line is not a line of this log.
    pub fn least() -> Self {
        [LogField::Time, LogField::Level, LogField::Msg, LogField::Kind].into_iter().fold(Self(0), Self::with)
    }

    /// The fields of one word of the configuration; `None`: there is no such word.
    pub fn of_word(word: &str) -> Option<Self> {
        if word == Self::DEFAULT_WORD {
            return Some(Self::default());
        }
        let named = LogField::ALL.iter().find(|field| field.name() == word);
        named.map(|field| Self(0).with(*field))
    }

    /// Both choices together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Default for LogFields {
    /// Every field but those that are written on request only.
    fn default() -> Self {
        Self(Self::EVERY.0 & !(1 << LogField::UserAgent as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_field_has_a_name_of_its_own_that_needs_no_quotes() {
        let names: HashSet<_> = LogField::ALL.iter().map(|field| field.name()).collect();
        assert_eq!(names.len(), LogField::ALL.len());
        assert!(LogField::ALL.len() <= 64, "the set is a number of 64 bits");
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_ne!(name, LogFields::DEFAULT_WORD);
        }
    }

    #[test]
    fn a_choice_has_what_it_names_and_what_makes_a_line() {
        let chosen = LogFields::least().and(LogFields::of_word("user_agent").unwrap());
        let has: Vec<_> = LogField::ALL.iter().filter(|field| chosen.has(**field)).map(|field| field.name()).collect();
        assert_eq!(has, ["time", "level", "msg", "kind", "user_agent"]);
        let usual = LogFields::of_word("default").unwrap();
        assert!(LogField::ALL.iter().all(|field| usual.has(*field) != (*field == LogField::UserAgent)));
        assert_eq!(LogFields::of_word("colour"), None);
    }
}
