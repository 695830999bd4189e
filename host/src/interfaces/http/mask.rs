//! Answers that repeat a secret: the guest does not get it from the server either.
//!
//! A server that shows what it was sent, in an error page or as a test service does, would hand the
//! guest what the host kept from it. This is a second line: a server that encodes its answer, or
//! means to give the secret away, still can.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

/// What is shorter may stand in an answer by chance.
const SHORTEST: usize = 8;

/// Puts asterisks in the place of secrets, as many as they have bytes.
#[derive(Default)]
pub(super) struct Mask {
    secrets: Vec<Vec<u8>>,
    /// What may be the beginning of a secret, until it is known how it goes on.
    held: Vec<u8>,
}

impl Mask {
    /// Of the secrets that a request has.
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets = secrets.into_iter().map(String::into_bytes).filter(|secret| secret.len() >= SHORTEST);
        Self { secrets: secrets.collect(), held: Vec::new() }
    }

    /// Masks the values of headers.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let mut bytes = value.as_bytes().to_vec();
            if self.mask(&mut bytes)
                && let Ok(masked) = HeaderValue::from_bytes(&bytes)
            {
                *value = masked;
            }
        }
    }

    /// What can be given away of a body after this piece of it.
    pub(super) fn piece(&mut self, piece: Bytes) -> Bytes {
        if self.secrets.is_empty() {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        let mut held = std::mem::take(&mut self.held);
        self.mask(&mut held);
        let open = |secret: &Vec<u8>| {
            let most = held.len().min(secret.len() - 1);
            (1..=most).rev().find(|size| held.ends_with(&secret[..*size])).unwrap_or(0)
        };
        let kept = self.secrets.iter().map(open).max().unwrap_or(0);
        self.held = held.split_off(held.len() - kept);
        Bytes::from(held)
    }

    /// What is left at the end of the body.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.held);
        (!rest.is_empty()).then(|| Bytes::from(rest))
    }

    /// Whether there is something left.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    fn mask(&self, bytes: &mut [u8]) -> bool {
        let mut found = false;
        for secret in &self.secrets {
            let mut from = 0;
            while let Some(at) =
                bytes[from..].windows(secret.len()).position(|window| window == secret.as_slice())
            {
                bytes[from + at..from + at + secret.len()].fill(b'*');
                from += at + secret.len();
                found = true;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "abababac";

    #[test]
    fn headers_are_masked_and_short_secrets_are_not() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_static("Bearer abababac!"));
        Mask::new(["Bearer".to_owned(), SECRET.to_owned()]).headers(&mut headers);
        assert_eq!(headers["x-echo"], "Bearer ********!");
    }

    proptest! {
        #[test]
        fn however_a_body_is_cut_the_secret_is_masked_and_nothing_else_changes(
            pieces in prop::collection::vec("[abc]{0,9}|abababac|ababab", 0..12),
        ) {
            let mut mask = Mask::new([SECRET.to_owned()]);
            let mut given: Vec<u8> = Vec::new();
            for piece in &pieces {
                given.extend(mask.piece(Bytes::from(piece.clone())));
            }
            given.extend(mask.rest().unwrap_or_default());
            let expected = pieces.concat().replace(SECRET, "********");
            prop_assert_eq!(String::from_utf8(given).unwrap(), expected);
        }
    }
}
