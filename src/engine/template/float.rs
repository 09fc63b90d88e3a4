//! Floats as Python's `repr` and Go's `%v` write them: shortest digits that read back the same, and an exponent outside a
//! range of magnitudes that differs between the two.

use std::ops::Range;

/// The shortest text for the finite `value`; in exponent form (`1e+21`) unless its decimal exponent is in `plain`.
pub(super) fn shortest(value: f64, plain: Range<i32>) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !plain.contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::shortest;

    #[test]
    fn magnitudes_outside_the_plain_range_get_an_exponent_of_two_digits() {
        let python = |value| shortest(value, -4..16);
        assert_eq!(python(0.1), "0.1");
        assert_eq!(python(0.0001), "0.0001");
        assert_eq!(python(0.00001), "1e-05");
        assert_eq!(python(1.5e16), "1.5e+16");
        assert_eq!(python(1e100), "1e+100");
        assert_eq!(python(123456789012345.0), "123456789012345");
        assert_eq!(python(-0.0), "-0");
        assert_eq!(shortest(1e20, -4..21), "100000000000000000000");
    }
}
