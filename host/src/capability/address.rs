//! Addresses that a request may go to.
//!
//! A name that a rule grants is looked up by whoever owns its zone, so it may lead anywhere: to the
//! machine itself, its neighbours, or the address that cloud providers serve credentials on. Only
//! public addresses are taken from a name, unless the operator has named others.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// A range or a single address.
    ///
    /// # Errors
    /// What is wrong, in words that follow the name of the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "must be an address or a range of them, such as \"10.1.2.3\" or \"10.0.0.0/8\"";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WANTED.to_owned())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => {
                prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(|| WANTED.to_owned())?
            }
            None => bits,
        };
        let network = Self { address, prefix };
        if network.mask(address) != to_bits(address) {
            return Err(
                "must begin at the first address of its range: the bits after the prefix are 0".to_owned()
            );
        }
        Ok(network)
    }

    /// Whether it has the address, or the IPv4 address that is written as IPv6 (`::ffff:0:0/96`).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && self.mask(address) == to_bits(self.address)
    }

    /// The address with what follows the prefix set to 0.
    fn mask(&self, address: IpAddr) -> u128 {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let rest = bits - u32::from(self.prefix);
        to_bits(address).checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == whole {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// What keeps an address from being public, in the words of the registries of special-purpose
/// addresses (RFC 6890 and what IANA has added since); `None` for public ones.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let kind = match address.octets() {
        [0, ..] => "the unspecified address or its network",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "an address of a provider's shared range",
        [127, ..] => "a loopback address",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, _] => "an address of the IETF's protocol assignments",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for documentation",
        [192, 88, 99, _] => "an address of 6to4 relays",
        [198, 18 | 19, ..] => "an address for benchmarks",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    };
    Some(kind)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let kind = match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "the unspecified address or its network",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        // IPv4 in other clothes: mapped, NAT64's well-known prefix, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            return special_v4(v4(high, low));
        }
        [0x2002, high, low, ..] => return special_v4(v4(high, low)),
        [0x64, 0xff9b, 1, ..] => "an address of a local NAT64",
        // Teredo has an IPv4 address in it as well; the others lead nowhere.
        [0x2001, 0..=0x1ff, ..] => "an address of the IETF's protocol assignments",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address for documentation",
        [0xfc00..=0xfdff, ..] => "a unique local address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_not_public_is_known_at_both_ends_of_its_range_and_in_every_notation() {
        let special_ones = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 \
             127.255.255.255 169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.8 192.0.2.1 \
             192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.7 \
             203.0.113.7 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 \
             ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 \
             64:ff9b::169.254.169.254 64:ff9b:1::8.8.8.8 2002:7f00:1:: 2002:a9fe:a9fe::1 2001::1 \
             2001:db8::1 3fff::1 fc00::1 fdff::1 fe80::1 febf::1 fec0::1 ff02::1 100::1 5f00::1 \
             4000::1";
        for address in special_ones.split_whitespace() {
            assert!(special(ip(address)).is_some(), "{address}");
        }
        let public = "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
             169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 \
             223.255.255.255 2606:4700::1111 2a00::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:101:101::1";
        for address in public.split_whitespace() {
            assert_eq!(special(ip(address)), None, "{address}");
        }
    }

    #[test]
    fn a_range_is_read_and_written_and_has_its_own_addresses_only() {
        let network = Network::parse("10.1.0.0/16").unwrap();
        assert_eq!(network.to_string(), "10.1.0.0/16");
        for (address, inside) in [
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("10.0.255.255", false),
            ("::ffff:10.1.2.3", true),
            ("::10.1.2.3", false),
        ] {
            assert_eq!(network.contains(ip(address)), inside, "{address}");
        }
        assert_eq!(Network::parse("::1").unwrap().to_string(), "::1");
        assert!(Network::parse("0.0.0.0/0").unwrap().contains(ip("255.0.0.1")));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains(ip("::1")));
        assert!(Network::parse("::/0").unwrap().contains(ip("ff::1")));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.1/8", "localhost", "10.0.0.0/", "10.0.0/8"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_address_that_is_not_public_is_not_public_as_ipv6_either(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let expected = special(address.into());
            for other in [
                address.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(special(other.into()), expected, "{}", other);
            }
        }

        #[test]
        fn a_range_has_the_addresses_that_share_its_first_bits(bits: u32, other: u32, prefix in 0_u8..=32) {
            let first = bits & (u64::from(u32::MAX) << (32 - u32::from(prefix))) as u32;
            let network = Network::parse(&format!("{}/{prefix}", Ipv4Addr::from(first))).unwrap();
            prop_assert!(network.contains(Ipv4Addr::from(bits).into()));
            let shared = (bits ^ other).leading_zeros() >= prefix.into();
            prop_assert_eq!(network.contains(Ipv4Addr::from(other).into()), shared);
        }
    }
}
