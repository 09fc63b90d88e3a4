//! [`Site`]: where a node or a client is, and how far that is from elsewhere.

use serde::{Deserialize, Serialize};

use super::draw::number_of;

/// Mean radius of the earth in kilometres (IUGG).
const EARTH_RADIUS: f32 = 6371.0;
/// The longest name of a zone that a header may have.
const LONGEST_ZONE: usize = 64;

/// Where something is, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Site {
    /// What nodes and clients of the same place share.
    pub zone: Option<Zone>,
    /// On the globe.
    pub location: Option<Location>,
}

/// The name of a place, as a number: a decision compares those of a thousand nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(u64);

impl Zone {
    /// The zone of this name.
    pub fn of(name: &str) -> Self {
        Self(number_of(name))
    }
}

impl Site {
    /// What a header says: `zone`, `latitude,longitude`, or both with `;` between. `None` if it says neither.
    pub fn parse(text: &str) -> Option<Self> {
        let mut site = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once(',') {
                Some((latitude, longitude)) => {
                    let degrees = [latitude.trim().parse().ok()?, longitude.trim().parse().ok()?];
                    site.location = Some(Location::try_from(degrees).ok()?);
                }
                None if part.len() <= LONGEST_ZONE => site.zone = Some(Zone::of(part)),
                None => return None,
            }
        }
        (site != Self::default()).then_some(site)
    }
}

/// A place on the globe: `[latitude, longitude]` in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f32; 2]", into = "[f32; 2]")]
pub struct Location {
    degrees: [f32; 2],
    /// The same as a point of the unit sphere, so that comparing distances takes no trigonometry.
    point: [f32; 3],
}

impl TryFrom<[f32; 2]> for Location {
    type Error = &'static str;

    fn try_from(degrees: [f32; 2]) -> Result<Self, Self::Error> {
        let [latitude, longitude] = degrees;
        if !(-90.0..=90.0).contains(&latitude) || !(-180.0..=180.0).contains(&longitude) {
            return Err("expected [latitude, longitude] in degrees, -90 to 90 and -180 to 180");
        }
        let (sin, cos) = latitude.to_radians().sin_cos();
        let (east, north) = longitude.to_radians().sin_cos();
        Ok(Self { degrees, point: [cos * north, cos * east, sin] })
    }
}

impl From<Location> for [f32; 2] {
    fn from(location: Location) -> Self {
        location.degrees
    }
}

impl Location {
    /// Kilometres straight through the earth, which order as those over its surface do and are cheaper.
    pub fn chord(&self, other: &Self) -> f32 {
        let squares = self.point.iter().zip(&other.point).map(|(a, b)| (a - b) * (a - b));
        EARTH_RADIUS * squares.sum::<f32>().sqrt()
    }

    /// Kilometres over the surface, along the great circle.
    pub fn distance(&self, other: &Self) -> f32 {
        let half_chord = (self.chord(other) / (2.0 * EARTH_RADIUS)).min(1.0);
        2.0 * EARTH_RADIUS * half_chord.asin()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(latitude: f32, longitude: f32) -> Location {
        Location::try_from([latitude, longitude]).unwrap()
    }

    #[test]
    fn known_distances_are_right() {
        let (berlin, new_york, sydney) = (at(52.52, 13.405), at(40.7128, -74.006), at(-33.8688, 151.2093));
        for (a, b, km) in [(berlin, new_york, 6385.0), (berlin, sydney, 16_094.0), (berlin, berlin, 0.0)] {
            assert!((a.distance(&b) - km).abs() < 5.0, "{} instead of {km}", a.distance(&b));
        }
        assert!((at(0.0, 180.0).distance(&at(0.0, -180.0))) < 1.0, "the date line is no border");
    }

    #[test]
    fn a_header_names_a_zone_a_location_or_both() {
        let zone = |zone: &str| Site { zone: Some(Zone::of(zone)), location: None };
        assert_eq!(Site::parse("eu-1"), Some(zone("eu-1")));
        assert_eq!(
            Site::parse("eu-1; 52.4, 4.9"),
            Some(Site { location: Some(at(52.4, 4.9)), ..zone("eu-1") })
        );
        assert_eq!(Site::parse("52.4,4.9"), Some(Site { zone: None, location: Some(at(52.4, 4.9)) }));
        for wrong in ["", ";", "91,0", "0,181", "a,b", "NaN,0", &"x".repeat(65)] {
            assert_eq!(Site::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_nearer_through_the_earth_is_nearer_over_it(points in prop::array::uniform3((-90.0..90.0_f32, -180.0..180.0_f32))) {
            let [a, b, c] = points.map(|(latitude, longitude)| at(latitude, longitude));
            // A metre of a single-precision sphere is noise.
            if a.chord(&b) + 0.01 < a.chord(&c) {
                prop_assert!(a.distance(&b) < a.distance(&c));
            }
        }

        #[test]
        fn no_header_panics(text in ".{0,80}") {
            let _ = Site::parse(&text);
        }
    }
}
