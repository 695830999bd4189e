//! Numbers that look random and are the same on every host, in every release.
//!
//! FNV-1a over the parts, 64 bits, with a byte 0xff after each (no UTF-8 text has it), and then
//! the last step of SplitMix64, since FNV's high bits alone are poor for short texts. It must
//! never change: the minutes of all jobs with `H` would.

/// A number of all 64 bits, drawn from some bytes.
pub(super) fn draw(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// What was drawn, as a number in `0..below`; 0 of none.
pub(super) fn scale(drawn: u64, below: u64) -> u64 {
    // The high half of the product is below `below`, so it fits.
    ((u128::from(drawn) * u128::from(below)) >> 64) as u64
}
