//! Lines of the log, read by the letter of the rule in `sessile help log`.

use serde_json::Value;

/// The fields of a line of text, in its order; an error says what breaks the rule.
pub fn fields(line: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (name, value) = rest.split_once('=').ok_or_else(|| format!("no = in {rest:?}"))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(format!("the name {name:?}"));
        }
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            let end = end_of_quoted(quoted).ok_or_else(|| format!("{value:?} does not end"))?;
            let text: String = serde_json::from_str(&value[..end + 2]).map_err(|error| format!("{value}: {error}"))?;
            if !text.is_empty() && text.bytes().all(is_bare) {
                return Err(format!("{text:?} is quoted without need"));
            }
            (text, &quoted[end + 1..])
        } else {
            let end = value.find(' ').unwrap_or(value.len());
            if end == 0 || !value[..end].bytes().all(is_bare) {
                return Err(format!("{:?} is not quoted", &value[..end]));
            }
            (value[..end].to_owned(), &value[end..])
        };
        fields.push((name.to_owned(), value));
        match after.strip_prefix(' ') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("{after:?} behind a value")),
        }
    }
}

/// Reads a line of either form as one object, and checks what every line has.
pub fn read(line: &str) -> Value {
    let object = if line.starts_with('{') {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    } else {
        let fields = fields(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let count = fields.len();
        let object: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name, value.into())).collect();
        assert_eq!(object.len(), count, "a name comes twice: {line}");
        Value::Object(object)
    };
    let is_text = |name: &str| object[name].is_string();
    assert!(is_text("time") && is_text("level"), "{line}");
    assert!(is_text("msg") != is_text("kind"), "{line}");
    object
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"=\\".contains(&byte)
}

/// Where the closing quote stands.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}
