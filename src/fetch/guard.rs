//! Addresses that no archive comes from: link-local ones, where clouds hand out credentials of the node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// Metadata services outside the link-local range: Alibaba's and Azure's.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// AWS's.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// An address was refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "its host has the address {0}, where no archive may come from: it is link-local or a metadata service's"
)]
pub struct Refused(pub IpAddr);

/// Whether archives may come from there.
pub fn check(address: IpAddr) -> Result<(), Refused> {
    let refused = match address {
        IpAddr::V4(v4) => refuses_v4(v4),
        IpAddr::V6(v6) => {
            v6 == METADATA_V6
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || embedded(v6).is_some_and(refuses_v4)
        }
    };
    if refused { Err(Refused(address)) } else { Ok(()) }
}

fn refuses_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(pair(high, low)),
        _ => None,
    }
}

/// Resolves names as the system does and refuses the rest: at each redirect, and for addresses that are written out.
#[derive(Default)]
pub struct Guard(DefaultResolver);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let addresses = self.0.resolve(uri, config, timeout)?;
        for address in &addresses {
            check(address.ip()).map_err(|refused| Error::Other(Box::new(refused)))?;
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_refused_in_every_guise() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "fd00:ec2::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(check(address.parse().unwrap()).is_err(), "{address}");
        }
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "93.184.216.34",
            "fd00::1",
            "2606:2800::1",
            "::1",
        ] {
            assert!(check(address.parse().unwrap()).is_ok(), "{address}");
        }
    }
}
