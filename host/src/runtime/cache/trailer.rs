//! What stands behind the code in a file of the cache.
//!
//! Behind it and not before it: wasmtime maps the file, whose code starts at a page. It reads what
//! its own headers name, and nothing else.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use super::{Key, read_pieces};

/// The last byte is the version of the layout.
const MAGIC: [u8; 16] = *b"innkeeper cwasm\x01";

/// Bytes of magic, key, length and checksum.
const BYTES: usize = 16 + 32 + 8 + 32;

/// The end of a file.
pub(super) struct Trailer {
    /// Of the component and the engine.
    pub(super) key: [u8; 32],
    /// Bytes before the trailer.
    pub(super) length: u64,
    /// SHA-256 of those bytes.
    pub(super) checksum: [u8; 32],
}

impl Trailer {
    pub(super) fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&MAGIC);
        bytes[16..48].copy_from_slice(&self.key);
        bytes[48..56].copy_from_slice(&self.length.to_le_bytes());
        bytes[56..].copy_from_slice(&self.checksum);
        bytes
    }
}

/// Compares all that the trailer says with the file. Returns the bytes of code.
pub(super) fn check(file: &mut File, key: &Key) -> anyhow::Result<u64> {
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is no file");
    let length = metadata.len().checked_sub(BYTES as u64).context("it is too short")?;
    let mut found = [0; BYTES];
    file.seek(SeekFrom::Start(length))?;
    file.read_exact(&mut found)?;
    ensure!(found[..16] == MAGIC, "it does not end as it should");
    ensure!(found[16..48] == key.hash, "it is of another component or another engine");
    ensure!(found[48..56] == length.to_le_bytes(), "it has another length than it was written with");
    file.rewind()?;
    let mut hasher = Sha256::new();
    read_pieces(file, length, |piece| hasher.update(piece))?;
    ensure!(found[56..] == *hasher.finalize(), "its checksum is wrong");
    Ok(length)
}
