//! [`uniform`] and [`second_uniform`]: the random numbers of one place in one generation.
//!
//! Sampling is keyed, not streamed: the number depends on the seed and the absolute position alone, so a generation that is
//! resumed elsewhere draws what it would have drawn here.

/// A number in [0, 1) for (seed, position): two rounds of the splitmix64 finaliser (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014), used as a counter-based generator.
pub fn uniform(seed: u64, position: u64) -> f64 {
    // The 53 high bits are what a double's mantissa holds.
    (bits(seed, position) >> 11) as f64 / (1u64 << 53) as f64
}

/// The 64 bits behind it.
pub fn bits(seed: u64, position: u64) -> u64 {
    mix(mix(seed) ^ position.wrapping_mul(GOLDEN_GAMMA))
}

/// Another such number for the same place, which tells nothing about the first: it is that of the seed with every bit turned,
/// which no request has, for seeds are not negative.
pub fn second_uniform(seed: u64, position: u64) -> f64 {
    uniform(!seed, position)
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GOLDEN_GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_gives_the_same_number_and_another_key_another() {
        assert_eq!(uniform(7, 100).to_bits(), uniform(7, 100).to_bits());
        assert_ne!(uniform(7, 100).to_bits(), uniform(7, 101).to_bits());
        assert_ne!(uniform(7, 100).to_bits(), uniform(8, 100).to_bits());
    }

    #[test]
    fn the_two_numbers_of_a_place_are_independent() {
        let above = |draw: fn(u64, u64) -> f64, position| draw(7, position) >= 0.5;
        let alike = (0..100_000)
            .filter(|&position| above(uniform, position) == above(second_uniform, position))
            .count();
        // 50,000, standard deviation 158: five of them.
        assert!(alike.abs_diff(50_000) < 790, "{alike}");
    }

    #[test]
    fn numbers_are_spread_evenly_over_positions_and_over_seeds() {
        for by_position in [true, false] {
            let mut counts = [0u32; 10];
            for i in 0..100_000u64 {
                let value = if by_position { uniform(42, i) } else { uniform(i, 42) };
                assert!((0.0..1.0).contains(&value));
                counts[(value * 10.0) as usize] += 1;
            }
            // 10,000 each, standard deviation 95: five of them.
            assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 475), "{counts:?}");
        }
    }
}
