//! One bounded total that many networks draw on: places for connections, entries of a table, bytes of memory.
//!
//! Invariant: a network holds no more than is still free for all others. So one network alone gets half, two get a third
//! each, and however many there are, one that holds nothing yet finds something. Why not a fixed share: whoever owns a few
//! networks would fill the total with a few fixed shares (the rule is that of Choudhury and Hahne, "Dynamic queue length
//! thresholds", 1998). Spec: docs/protocol.md#shares-of-a-network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_protocol::limits::{IPV4_NETWORK_BITS, IPV6_NETWORK_BITS};

/// What one party usually owns whole: an IPv4 /24, an IPv6 /48. IPv4-mapped IPv6 counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX << (32 - u32::from(IPV4_NETWORK_BITS));
                Self(IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask)))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX << (128 - u32::from(IPV6_NETWORK_BITS));
                Self(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask)))
            }
        }
    }
}

/// How much of a total is held, and by whom.
#[derive(Debug, Default)]
pub struct Shares {
    held: BTreeMap<Network, usize>,
    used: usize,
}

impl Shares {
    /// Takes `amount` for a network, if it then holds no more than is free for the others, or no more than
    /// `network_max` if the operator said so. `false`: nothing was taken.
    pub fn take(&mut self, network: Network, amount: usize, total_max: usize, network_max: Option<usize>) -> bool {
        let free = total_max.saturating_sub(self.used);
        let held = self.of(network).saturating_add(amount);
        if amount > free || held > network_max.unwrap_or(free) {
            return false;
        }
        self.held.insert(network, held);
        self.used += amount;
        true
    }

    /// Gives back what was taken; never more than that.
    pub fn give(&mut self, network: Network, amount: usize) {
        if let Some(held) = self.held.get_mut(&network) {
            let amount = amount.min(*held);
            *held -= amount;
            self.used -= amount;
            if *held == 0 {
                self.held.remove(&network);
            }
        }
    }

    /// What a network holds.
    #[must_use]
    pub fn of(&self, network: Network) -> usize {
        self.held.get(&network).copied().unwrap_or(0)
    }

    /// What all hold together.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(number: u8) -> Network {
        Network::of(IpAddr::V4(Ipv4Addr::new(10, 0, number, 1)))
    }

    #[test]
    fn a_network_is_a_24_or_a_48() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:ffff::1"), of("2001:db8:1::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    #[test]
    fn an_operator_may_give_one_network_everything() {
        let mut shares = Shares::default();
        assert!((0..10).all(|_| shares.take(network(1), 1, 10, Some(10))));
        assert!(!shares.take(network(2), 1, 10, Some(10)));
        shares.give(network(1), 100);
        assert_eq!(shares.used(), 0);
    }

    proptest! {
        /// Whatever some networks take and give back, in whatever order, one that comes after them finds a place: as long as
        /// they are fewer than the places.
        #[test]
        fn no_networks_together_shut_another_one_out(steps in proptest::collection::vec((0u8..6, any::<bool>()), 0..400)) {
            let mut shares = Shares::default();
            for (number, take) in steps {
                if take {
                    shares.take(network(number), 1, 40, None);
                } else {
                    shares.give(network(number), 1);
                }
                let held: usize = (0..6).map(|number| shares.of(network(number))).sum();
                prop_assert_eq!(shares.used(), held);
                prop_assert!(held <= 40);
            }
            prop_assert!(shares.take(network(99), 1, 40, None));
        }
    }
}
