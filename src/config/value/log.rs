//! What the log has: names of fields, and where its lines go.
//!
//! Opens no output. Invariant: a field is one of the table, or the word for those that lines have by default.

use toml::de::DeValue;

use super::{ValueResult, file, text};
use crate::config::LogOutput;
use crate::config::keys::nearest;
use crate::config::problem::Bad;
use crate::log_field::{LogField, LogFields};

/// Reads the name of a field of the log, or `"default"`.
pub(in crate::config) fn log_field(value: &DeValue<'_>) -> ValueResult<&'static str> {
    let written = text(value)?;
    let names = || LogField::ALL.iter().map(|field| field.name()).chain([LogFields::DEFAULT_WORD]);
    names().find(|name| *name == written).ok_or_else(|| {
        let bad = Bad::new("is not a field of the log");
        match nearest(written, names()) {
            Some(near) => bad.hint(format!("did you mean \"{near}\"?")),
            None => bad.hint("`sessile help log` lists them; \"default\" stands for those of every line"),
        }
    })
}

/// Reads where the access log goes: a word, or the path of a file.
pub(in crate::config) fn log_output(value: &DeValue<'_>) -> ValueResult<LogOutput> {
    match text(value)? {
        "stdout" => Ok(LogOutput::Stdout),
        "journal" => Ok(LogOutput::Journal),
        path if path.contains('/') => file(value).map(LogOutput::File),
        _ => {
            let bad = Bad::new("is neither \"stdout\" nor \"journal\" nor the path of a file");
            Err(bad.hint("a path has a slash: \"/var/log/sessile/access.log\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &'static str) -> DeValue<'static> {
        DeValue::String(text.into())
    }

    #[test]
    fn an_output_is_a_word_or_a_path() {
        assert_eq!(log_output(&string("stdout")), Ok(LogOutput::Stdout));
        assert_eq!(log_output(&string("journal")), Ok(LogOutput::Journal));
        assert_eq!(log_output(&string("/var/log/a.log")), Ok(LogOutput::File("/var/log/a.log".into())));
        assert_eq!(log_output(&string("./a.log")), Ok(LogOutput::File("./a.log".into())));
        for other in ["", "syslog", "access.log", "/a\0"] {
            assert!(log_output(&string(other)).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_field_that_is_none_gets_the_nearest_name_as_a_hint() {
        assert_eq!(log_field(&string("user_agent")), Ok("user_agent"));
        assert_eq!(log_field(&string("default")), Ok("default"));
        assert!(log_field(&string("user_agnet")).unwrap_err().hint.unwrap().contains("\"user_agent\""));
        assert!(log_field(&string("colour")).is_err());
    }
}
