//! Changes to bytes that nothing is known of.

/// Where random numbers come from. All follow from a seed.
pub type Random = fastrand::Rng;

/// Numbers at which something often changes.
pub(super) const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    100,
    127,
    128,
    255,
    256,
    1_000,
    1_023,
    4_095,
    4_096,
    32_767,
    32_768,
    65_535,
    65_536,
    999_999,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    u32::MAX as u64,
    1 << 32,
    1 << 53,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// One of several.
pub(super) fn pick<'a, T: ?Sized>(random: &mut Random, of: &[&'a T]) -> &'a T {
    of[random.usize(..of.len())]
}

/// An input of the pool.
pub(super) fn choose<'a>(random: &mut Random, pool: &'a [Vec<u8>]) -> &'a [u8] {
    // What was found last is worth as much as all the rest: it is the least worn.
    let from = if random.bool() { pool.len().saturating_sub(64) } else { 0 };
    &pool[random.usize(from..pool.len())]
}

/// A part of `len` bytes or less.
pub(super) fn range(random: &mut Random, len: usize) -> std::ops::Range<usize> {
    let start = random.usize(..=len);
    let most = (len - start).min(1 << random.u32(0..12));
    start..start + random.usize(..=most)
}

/// Some changes, to bytes without a form. `other` lends what is spliced in.
pub(super) fn mutate(random: &mut Random, mut input: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..1 + random.usize(..4) {
        change(random, &mut input, other);
    }
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    let len = input.len();
    match random.u8(..8) {
        0 if len > 0 => input[random.usize(..len)] ^= 1 << random.u8(..8),
        1 if len > 0 => input[random.usize(..len)] = random.u8(..),
        2 => {
            let part = range(random, len);
            input.drain(part);
        }
        3 => {
            let copy = input[range(random, len)].to_vec();
            let at = random.usize(..=len);
            input.splice(at..at, copy);
        }
        4 => {
            let part = other[range(random, other.len())].to_vec();
            let place = range(random, len);
            input.splice(place, part);
        }
        5 => {
            // The beginning of this one, the end of the other.
            input.truncate(random.usize(..=len));
            input.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        6 if len >= 8 => {
            let number = NUMBERS[random.usize(..NUMBERS.len())];
            let width = 1 << random.u32(..4);
            let at = random.usize(..=len - width);
            input[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        _ => {
            let mut bytes = Vec::new();
            leb128(NUMBERS[random.usize(..NUMBERS.len())], &mut bytes);
            // As often as not in place of what is there.
            let place = range(random, len);
            input.splice(place, bytes);
        }
    }
}

/// An unsigned number as WebAssembly writes it.
pub(super) fn leb128(mut number: u64, to: &mut Vec<u8>) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        to.push(byte | if number > 0 { 0x80 } else { 0 });
        if number == 0 {
            break;
        }
    }
}

/// The number that begins here, and how many bytes it takes.
pub(super) fn read_leb128(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

/// The input without its first half, its second half, each quarter and so on.
pub(super) fn shorter(input: &[u8]) -> Vec<Vec<u8>> {
    let mut shorter = Vec::new();
    let mut size = input.len().div_ceil(2);
    while size > 0 && shorter.len() < 1_000 {
        for start in (0..input.len()).step_by(size) {
            let end = (start + size).min(input.len());
            shorter.push([&input[..start], &input[end..]].concat());
        }
        size /= 2;
    }
    shorter
}

/// The form of a message: without numbers and without what is quoted in it.
pub(super) fn form(message: &str) -> String {
    let mut form = String::new();
    let mut quote = None;
    for c in message.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if matches!(c, '`' | '"' | '\u{201c}') => {
                quote = Some(if c == '\u{201c}' { '\u{201d}' } else { c });
                form.push(c);
            }
            None if c.is_ascii_digit() => {
                if !form.ends_with('0') {
                    form.push('0');
                }
            }
            None => form.push(c),
        }
        if form.len() > 200 {
            break;
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_was_written() {
        for number in NUMBERS {
            let mut bytes = Vec::new();
            leb128(*number, &mut bytes);
            assert_eq!(read_leb128(&bytes), Some((*number, bytes.len())));
        }
        assert_eq!(read_leb128(&[0x80; 20]), None);
    }

    #[test]
    fn the_same_seed_makes_the_same_changes() {
        let change = |seed| mutate(&mut Random::with_seed(seed), b"hello world".to_vec(), b"another one");
        assert_eq!(change(7), change(7));
        assert!((0..20).any(|seed| change(seed) != change(7)));
    }

    #[test]
    fn messages_of_one_form_are_known_by_it() {
        assert_eq!(form("`a` is 17 of 4"), form("`bcd` is 3 of 123"));
        assert_ne!(form("`a` is more"), form("`a` is less"));
    }
}
