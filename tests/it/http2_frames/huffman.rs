//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: shorter codes come first, and codes of one length stand in the order of their symbols. So the
//! lengths are the whole table. Invariant: what `decode` accepts, `encode` writes again, byte by byte.

/// Symbol that ends a string, which no string may contain.
const END: usize = 256;

/// Length of each symbol's code in bits; the last is that of [`END`].
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Code of each symbol, in its lowest bits.
fn codes() -> [u32; 257] {
    let mut symbols: Vec<usize> = (0..LENGTHS.len()).collect();
    symbols.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
    let (mut codes, mut next, mut length) = ([0; 257], 0_u32, LENGTHS[symbols[0]]);
    for symbol in symbols {
        next <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        codes[symbol] = next;
        next += 1;
    }
    codes
}

/// Encodes a string, padded with ones to whole bytes.
pub fn encode(text: &[u8]) -> Vec<u8> {
    let codes = codes();
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u64, 0);
    for symbol in text {
        let symbol = usize::from(*symbol);
        bits = bits << LENGTHS[symbol] | u64::from(codes[symbol]);
        count += LENGTHS[symbol];
        while count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        bytes.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
    bytes
}

/// Decodes a string; an error says what RFC 7541 §5.2 forbids in it.
pub fn decode(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let codes = codes();
    let (mut text, mut code, mut length) = (Vec::new(), 0_u32, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        code = code << 1 | bit;
        length += 1;
        let found = (0..LENGTHS.len()).find(|symbol| LENGTHS[*symbol] == length && codes[*symbol] == code);
        match found {
            Some(END) => return Err("the symbol that ends a string is in it"),
            Some(symbol) => {
                text.push(symbol as u8);
                (code, length) = (0, 0);
            }
            None => assert!(length < 30, "the code is complete, so 30 bits are a symbol"),
        }
    }
    if length > 7 {
        return Err("more than seven bits of padding");
    }
    if code != (1 << length) - 1 {
        return Err("padding that is not all ones");
    }
    Ok(text)
}
