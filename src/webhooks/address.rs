//! Classes of network addresses. A URL that an operator has checked may still lead elsewhere: the
//! owner of a host name can change its address at any time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    Public,
    /// This machine or a private network.
    Private,
    /// Never the receiver of webhooks: link-local addresses, where clouds serve the credentials of
    /// the machine, and addresses that are not unicast.
    Forbidden,
}

/// Metadata services of clouds at addresses that are not link-local.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
];

impl AddressClass {
    pub fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address) {
            return Self::Forbidden;
        }
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        match (a, b, c) {
            // "This network", link-local, protocol assignments; multicast, reserved, broadcast.
            (0, ..) | (169, 254, _) | (192, 0, 0) | (224.., ..) => Self::Forbidden,
            // Besides RFC 1918: 100.64.0.0/10 (carrier-grade NAT), 198.18.0.0/15 (benchmarks).
            (10 | 127, ..)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (100, 64..=127, _)
            | (198, 18..=19, _) => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if let Some(inner) = embedded_v4(address) {
            return Self::of(inner.into());
        }
        // Local-use NAT64 (RFC 8215), and the deprecated site-local addresses.
        let is_of_site = matches!(
            address.segments(),
            [0x64, 0xff9b, 1, ..] | [0xfec0..=0xfeff, ..]
        );
        if address.is_loopback() || address.is_unique_local() || is_of_site {
            return Self::Private;
        }
        if address.is_unspecified() || address.is_unicast_link_local() || address.is_multicast() {
            return Self::Forbidden;
        }
        Self::Public
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_class_in_every_notation() {
        let expected = [
            (
                AddressClass::Public,
                &[
                    "93.184.216.34",
                    "2606:2800::1",
                    "::ffff:8.8.8.8",
                    "100.63.0.1",
                    "172.32.0.1",
                ][..],
            ),
            (
                AddressClass::Private,
                &[
                    "127.0.0.1",
                    "127.8.8.8",
                    "::1",
                    "10.1.2.3",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "fd12:3456::1",
                    "64:ff9b:1::a00:1",
                    "fec0::1",
                    "::ffff:10.0.0.1",
                    "64:ff9b::192.168.0.1",
                    "2002:0a00:0001::1",
                    "::127.0.0.1",
                ],
            ),
            (
                AddressClass::Forbidden,
                &[
                    "169.254.169.254",
                    "::ffff:169.254.169.254",
                    "64:ff9b::169.254.169.254",
                    "2002:a9fe:a9fe::",
                    "fe80::1",
                    "fd00:ec2::254",
                    "100.100.100.200",
                    "::ffff:100.100.100.200",
                    "168.63.129.16",
                    "192.0.0.192",
                    "0.0.0.0",
                    "::",
                    "224.0.0.1",
                    "255.255.255.255",
                    "ff02::1",
                ],
            ),
        ];
        for (class, addresses) in expected {
            for address in addresses {
                let parsed = address.parse().expect("a valid address");
                assert_eq!(AddressClass::of(parsed), class, "{address}");
            }
        }
    }
}
