//! Reads single values out of a page of metrics in Prometheus' text format.

/// The sum over all series of `family`; `None` if it has none.
pub(super) fn sum(page: &str, family: &str) -> Option<f64> {
    values(page, family).reduce(|a, b| a + b)
}

/// The highest value among the series of `family`.
pub(super) fn max(page: &str, family: &str) -> Option<f64> {
    values(page, family).reduce(f64::max)
}

fn values<'a>(page: &'a str, family: &'a str) -> impl Iterator<Item = f64> + 'a {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(family)?;
        // A label may hold anything, spaces and braces too; its value is quoted, so the last brace ends them.
        let rest = match rest.strip_prefix('{') {
            Some(labels) => &labels[labels.rfind('}')? + 1..],
            None => rest.strip_prefix(' ')?,
        };
        rest.split_whitespace().next()?.parse().ok().filter(|value: &f64| value.is_finite())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_series_and_no_others() {
        let page = "# TYPE a gauge\na{x=\"} 9\"} 1.5\na 2 1700000000\nab 7\na_total{} 8\nc{} NaN\n";
        assert_eq!((sum(page, "a"), max(page, "a")), (Some(3.5), Some(2.0)));
        assert_eq!((sum(page, "c"), sum(page, "d")), (None, None));
    }
}
