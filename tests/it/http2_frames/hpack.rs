//! Header compression of the client: an encoder that writes each field as a case wants it, and a [`Decoder`] for what
//! the server sends (RFC 7541).
//!
//! The encoder keeps no table: which entries are indexed is the case's own affair. Invariant: the decoder accepts only
//! what RFC 7541 allows, so the server's encoder is checked by every response.

use std::collections::VecDeque;

use super::huffman;

/// Size of the dynamic table until the client's SETTINGS say otherwise.
pub const TABLE_SIZE: usize = 4_096;

/// Entries of the static table: RFC 7541 appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// An integer with a prefix of so many bits; `mark` are the bits in front of it.
pub fn integer(value: usize, prefix: u32, mark: u8) -> Vec<u8> {
    let most = (1_usize << prefix) - 1;
    if value < most {
        return vec![mark | value as u8];
    }
    let (mut bytes, mut rest) = (vec![mark | most as u8], value - most);
    while rest >= 128 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// A string as it is, without Huffman code.
pub fn plain(text: impl AsRef<[u8]>) -> Vec<u8> {
    [integer(text.as_ref().len(), 7, 0), text.as_ref().to_vec()].concat()
}

/// A string in Huffman code, written by the bytes of the code itself.
pub fn huffman_bytes(code: &[u8]) -> Vec<u8> {
    [integer(code.len(), 7, 0x80), code.to_vec()].concat()
}

/// A field that does not enter the dynamic table.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0], plain(name), plain(value)].concat()
}

/// A field that enters the dynamic table.
pub fn indexing(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], plain(name), plain(value)].concat()
}

/// A field of either table, by its index.
pub fn indexed(index: usize) -> Vec<u8> {
    integer(index, 7, 0x80)
}

/// A change of the dynamic table's size.
pub fn table_size(size: usize) -> Vec<u8> {
    integer(size, 5, 0x20)
}

/// A block of fields, none of which enters the dynamic table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

pub type Fields = Vec<(String, String)>;

/// Reads blocks of fields, and keeps the dynamic table from one to the next.
pub struct Decoder {
    /// The newest entry is the first.
    table: VecDeque<(String, String)>,
    /// What the sender has chosen.
    size: usize,
    /// What the receiver allows.
    limit: usize,
    /// The limit was lowered below the size, and the next block has to say that it knows.
    is_due: bool,
}

impl Decoder {
    pub fn new(limit: usize) -> Self {
        Self { table: VecDeque::new(), size: limit, limit, is_due: false }
    }

    /// The receiver's SETTINGS have another limit from here on.
    pub fn set_limit(&mut self, limit: usize) {
        self.is_due |= limit < self.size;
        self.limit = limit;
    }

    /// Bytes of the dynamic table, as RFC 7541 §4.1 counts them.
    pub fn table_bytes(&self) -> usize {
        self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    /// Reads a whole block.
    pub fn decode(&mut self, mut bytes: &[u8]) -> Result<Fields, String> {
        let mut fields = Fields::new();
        let mut is_first = true;
        while let Some(first) = bytes.first().copied() {
            if first & 0xe0 == 0x20 {
                let size = self.integer(&mut bytes, 5)?;
                if size > self.limit || !fields.is_empty() {
                    return Err(format!("the table size {size} at this place"));
                }
                (self.size, self.is_due) = (size, false);
                self.evict(0);
                continue;
            }
            if std::mem::take(&mut is_first) && self.is_due {
                return Err("no change of the table's size behind a lower limit".to_owned());
            }
            let field = if first & 0x80 != 0 {
                let index = self.integer(&mut bytes, 7)?;
                self.entry(index)?
            } else {
                let enters = first & 0x40 != 0;
                let index = self.integer(&mut bytes, if enters { 6 } else { 4 })?;
                let name = if index == 0 { self.string(&mut bytes)? } else { self.entry(index)?.0 };
                let field = (name, self.string(&mut bytes)?);
                if enters {
                    self.insert(field.clone());
                }
                field
            };
            fields.push(field);
        }
        Ok(fields)
    }

    fn entry(&self, index: usize) -> Result<(String, String), String> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|at| STATIC.get(at)) {
            return Ok(((*name).to_owned(), (*value).to_owned()));
        }
        let dynamic = index.checked_sub(STATIC.len() + 1).and_then(|at| self.table.get(at));
        dynamic.cloned().ok_or_else(|| format!("no entry {index}"))
    }

    fn insert(&mut self, field: (String, String)) {
        let bytes = field.0.len() + field.1.len() + 32;
        self.evict(bytes);
        if bytes <= self.size {
            self.table.push_front(field);
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, bytes: usize) {
        while self.table_bytes() + bytes > self.size && self.table.pop_back().is_some() {}
    }

    fn integer(&self, bytes: &mut &[u8], prefix: u32) -> Result<usize, String> {
        let most = (1_usize << prefix) - 1;
        let (first, mut rest) = bytes.split_first().ok_or("an integer is missing")?;
        let mut value = usize::from(*first) & most;
        let mut shift = 0;
        if value == most {
            loop {
                let (byte, after) = rest.split_first().ok_or("an integer does not end")?;
                rest = after;
                if shift > 28 {
                    return Err("an integer is too long".to_owned());
                }
                value += (usize::from(*byte) & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        *bytes = rest;
        Ok(value)
    }

    fn string(&self, bytes: &mut &[u8]) -> Result<String, String> {
        let is_coded = bytes.first().ok_or("a string is missing")? & 0x80 != 0;
        let length = self.integer(bytes, 7)?;
        let (text, rest) = bytes.split_at_checked(length).ok_or("a string does not end")?;
        *bytes = rest;
        let text = if is_coded { huffman::decode(text)? } else { text.to_vec() };
        String::from_utf8(text).map_err(|_| "a string that is no text".to_owned())
    }
}
