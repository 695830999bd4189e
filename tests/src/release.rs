//! Versions of a guest: components that do the same and have other digests.

use std::path::{Path, PathBuf};

use innkeeper::plugin::Digest;

use crate::host::guest;

/// The file of a component that a configuration names, and what is put there.
pub struct Release {
    /// The file.
    pub path: PathBuf,
    guest: Vec<u8>,
}

impl Release {
    /// Of the guest `probe`, in version 1, in this folder.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn of_probe(folder: &Path) -> Self {
        let guest = std::fs::read(guest("probe")).expect("the guest can be read");
        let release = Self { path: folder.join("probe.wasm"), guest };
        release.publish(1);
        release
    }

    /// Puts this version there, so that nobody ever finds half of it.
    pub fn publish(&self, version: u32) {
        self.put(&self.bytes(version));
    }

    /// Puts any bytes there.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn put(&self, bytes: &[u8]) {
        let draft = self.path.with_extension("draft");
        std::fs::write(&draft, bytes).expect("the component can be written");
        std::fs::rename(&draft, &self.path).expect("the component can be replaced");
    }

    /// The digest of a version, as the store has it.
    #[must_use]
    pub fn digest(&self, version: u32) -> String {
        Digest::of(&self.bytes(version)).to_string()
    }

    /// The guest, and a custom section with the number, which every reader skips.
    fn bytes(&self, version: u32) -> Vec<u8> {
        let mut bytes = self.guest.clone();
        let name = b"version";
        let mut section = vec![u8::try_from(name.len()).expect("it is short")];
        section.extend(name);
        section.extend(version.to_le_bytes());
        bytes.push(0);
        bytes.push(u8::try_from(section.len()).expect("it is short"));
        bytes.extend(section);
        bytes
    }
}
