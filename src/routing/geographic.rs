//! `geographic`: the node that is nearest to the client: in its zone, else over the globe.

use std::time::Instant;

use super::least_loaded::by_load;
use super::{Candidate, Digest, Order, Reason, Row, Site, Strategy, StrategyName};

/// Kilometres that a node may be farther for each request less per place, which decides between nodes of one place and hardly
/// between places.
const KILOMETRES_PER_USAGE: f32 = 1.0;

/// A node without a free place comes after those that have one, whose place is known or not.
pub(super) struct Geographic;

impl Strategy for Geographic {
    fn rank(&self, digest: &Digest, candidates: &[Candidate], _: Instant, order: &mut Order) {
        order.begin(StrategyName::Geographic);
        if digest.client == Site::default() {
            order.note(Reason::NoSite);
        }
        for candidate in candidates {
            order.push(row(&digest.client, candidate));
        }
    }
}

/// Same zone, then known distances, then the rest; full nodes in the same order after all others.
fn row(client: &Site, candidate: &Candidate) -> Row {
    let full = by_load(candidate).group * 3;
    let is_same_zone = client.zone.is_some() && client.zone == candidate.site.zone;
    let usage = candidate.usage() / candidate.weight.max(f32::MIN_POSITIVE) * KILOMETRES_PER_USAGE;
    match (&client.location, &candidate.site.location) {
        _ if is_same_zone => Row::new(full, usage),
        (Some(client), Some(node)) => Row::new(full + 1, client.chord(node) + usage),
        _ => Row::new(full + 2, usage),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{best, best_for};
    use super::*;

    fn at(site: &str, in_flight: usize) -> Candidate {
        Candidate { site: Site::parse(site).unwrap(), in_flight, ..Candidate::new("n", 4) }
    }

    fn from(site: &str) -> Digest {
        Digest::default().from_site(Site::parse(site).unwrap())
    }

    #[test]
    fn the_zone_comes_before_the_distance_and_the_distance_before_the_unknown() {
        let nodes = [at("b", 0), at("c;52.5,13.4", 0), at("c;40.7,-74.0", 0), at("a;-33.9,151.2", 3)];
        assert_eq!(best_for(&Geographic, &from("a;52.4,4.9"), &nodes), Some(3));
        assert_eq!(best_for(&Geographic, &from("x;52.4,4.9"), &nodes), Some(1));
        assert_eq!(best_for(&Geographic, &from("41.0,-75.0"), &nodes), Some(2));
    }

    #[test]
    fn who_is_full_spills_and_nobodys_place_means_by_load() {
        assert_eq!(best_for(&Geographic, &from("a"), &[at("a", 4), at("b", 0)]), Some(1));
        assert_eq!(best_for(&Geographic, &from("a"), &[at("a", 4), at("b", 4)]), Some(0));
        assert_eq!(best(&Geographic, &[at("a", 2), at("b", 1)]), Some(1));
    }

    #[test]
    fn nodes_of_one_place_share_its_clients() {
        assert_eq!(
            best_for(&Geographic, &from("52.4,4.9"), &[at("52.4,4.9", 2), at("52.4,4.9", 1)]),
            Some(1)
        );
    }
}
