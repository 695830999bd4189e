//! PostgreSQL's `numeric` on the wire, to and from decimal digits, exactly.
//!
//! Pure. The format is that of `numeric_send` in the server's `numeric.c`: groups of four
//! decimal digits, the weight of the first group, a sign, and the number of digits behind the
//! point, which is part of the value: 12.50 is not written as 12.5.

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// The server's limit of digits behind the point, and far more than it takes before it.
const MOST_DIGITS: usize = 131_072;
const MOST_SCALE: usize = 16_383;

/// Reads the server's form. `None` where it is malformed.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| bytes.get(2 * at..2 * at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, usize::from(word(3)?));
    match sign {
        NAN => return Some("NaN".to_owned()),
        POSITIVE_INFINITY => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let groups: Vec<u16> = (0..usize::from(count)).map(|i| word(4 + i)).collect::<Option<_>>()?;
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);

    let mut whole = String::new();
    for at in 0..=weight {
        whole.push_str(&format!("{:04}", group(at)));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    for at in 0..i32::try_from(scale.div_ceil(4)).ok()? {
        fraction.push_str(&format!("{:04}", group(weight + 1 + at)));
    }
    fraction.truncate(scale);

    let sign = if sign == NEGATIVE { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Writes the server's form of decimal digits such as `-12.50` or `1e-7`, of `NaN` or of an
/// infinity. `None` where the text is no such number, or one that the server cannot hold.
pub(super) fn encode(text: &str) -> Option<Vec<u8>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match digits.to_ascii_lowercase().as_str() {
        "nan" if digits.len() == text.len() => return Some(bytes(0, NAN, 0, &[])),
        "infinity" | "inf" if negative => return Some(bytes(0, NEGATIVE_INFINITY, 0, &[])),
        "infinity" | "inf" => return Some(bytes(0, POSITIVE_INFINITY, 0, &[])),
        _ => {}
    }
    let (whole, fraction) = plain(digits)?;

    let whole = whole.trim_start_matches('0');
    if whole.len() > MOST_DIGITS || fraction.len() > MOST_SCALE {
        return None;
    }
    // Both sides are filled up to whole groups of four, counted from the point.
    let padded = format!("{}{whole}{fraction}{}", zeros(whole.len()), zeros(fraction.len()));
    let mut groups: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|four| four.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))
        .collect();
    let mut weight = i16::try_from(whole.len().div_ceil(4)).ok()? - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).ok()?;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if negative && !groups.is_empty() { NEGATIVE } else { 0 };
    Some(bytes(weight, sign, u16::try_from(fraction.len()).ok()?, &groups))
}

/// The digits before and behind the point, without an exponent.
fn plain(digits: &str) -> Option<(String, String)> {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let shift = usize::try_from(exponent.unsigned_abs()).ok().filter(|shift| *shift <= MOST_DIGITS)?;
    if exponent >= 0 {
        let moved = shift.min(fraction.len());
        let whole = format!("{whole}{}{}", &fraction[..moved], "0".repeat(shift - moved));
        Some((whole, fraction[moved..].to_owned()))
    } else {
        let filled = format!("{}{whole}", "0".repeat(shift.saturating_sub(whole.len())));
        let (whole, moved) = filled.split_at(filled.len() - shift);
        Some((whole.to_owned(), format!("{moved}{fraction}")))
    }
}

fn zeros(length: usize) -> &'static str {
    &"000"[..(4 - length % 4) % 4]
}

fn bytes(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> Vec<u8> {
    let count = u16::try_from(groups.len()).unwrap_or(u16::MAX);
    [count, weight.cast_unsigned(), sign, scale]
        .iter()
        .chain(groups)
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_come_back_as_they_went_with_their_scale() {
        for text in [
            "0",
            "0.0",
            "0.00000",
            "1",
            "-1",
            "12.50",
            "9999",
            "10000",
            "10001",
            "0.0001",
            "0.00001",
            "0.000000001234",
            "-0.5",
            "123456789012345678901234567890.1234567890",
            "100000000",
            "1.0000",
            "NaN",
            "Infinity",
            "-Infinity",
            "99990000",
            "0.12345",
            "12345.00001",
        ] {
            assert_eq!(decode(&encode(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn other_ways_to_write_a_number_are_understood() {
        for (written, read) in [
            ("1e3", "1000"),
            ("1.25e1", "12.5"),
            ("1.25E-3", "0.00125"),
            ("+7", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("007", "7"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("inf", "Infinity"),
            ("12e-1", "1.2"),
        ] {
            assert_eq!(decode(&encode(written).unwrap()).unwrap(), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1.2.3", "1e", "e1", "0x10", "1_000", " 1", "-nan", "1e999999999", "١"] {
            assert_eq!(encode(text), None, "{text:?}");
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0, 9, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn any_digits_come_back_as_they_went(text in "-?[1-9][0-9]{0,45}(\\.[0-9]{1,40})?") {
            prop_assert_eq!(decode(&encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn any_small_fraction_comes_back_as_it_went(text in "0\\.0{0,30}[0-9]{1,12}") {
            prop_assert_eq!(decode(&encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _read = decode(&bytes);
        }
    }
}
