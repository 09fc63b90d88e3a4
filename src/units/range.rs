//! The range that a whole number of the config has to be in.

use std::ops::RangeInclusive;

/// What is wrong with `value`, if it is outside of `range`.
pub fn fault(value: u64, range: RangeInclusive<u64>) -> Option<String> {
    if value < *range.start() {
        Some(format!("must be at least {}", range.start()))
    } else if value > *range.end() {
        Some(format!("must be at most {}", range.end()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_inside() {
        assert_eq!((fault(1, 1..=3), fault(3, 1..=3)), (None, None));
        assert_eq!(fault(0, 1..=3).as_deref(), Some("must be at least 1"));
        assert_eq!(fault(4, 1..=3).as_deref(), Some("must be at most 3"));
    }
}
