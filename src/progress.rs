//! [`Progress`]: what a parser returns for the first bytes of a message that may still be arriving.
//!
//! Parses nothing and holds no bytes. Invariant: `Done` and `No` are final: bytes that follow never change them.

/// The verdict of a parser on the bytes that have arrived so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<T, E> {
    /// The message is whole and valid.
    Done(T),
    /// The message is valid so far, but not whole.
    More,
    /// The message is invalid, and no further byte can change that.
    No(E),
}

/// Lets parsers use `?` inside: `Ok(None)` means that bytes are missing.
impl<T, E> From<Result<Option<T>, E>> for Progress<T, E> {
    fn from(result: Result<Option<T>, E>) -> Self {
        match result {
            Ok(Some(done)) => Self::Done(done),
            Ok(None) => Self::More,
            Err(refused) => Self::No(refused),
        }
    }
}
