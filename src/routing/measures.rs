//! Several measures of each candidate at once: what they are in relation to those of the others, and what stands for those that are not
//! known.

/// One number per measure; what is not a number is not known. As many as a processor takes at once; those that nobody uses are 0.
pub(super) type Measures = [f32; 8];

/// The number of something that may not be known.
pub(super) fn known(value: Option<f32>) -> f32 {
    value.unwrap_or(f32::NAN)
}

/// The measures of all candidates together.
pub(super) struct Summary {
    largest: Measures,
    sums: Measures,
    counts: Measures,
}

impl Summary {
    /// Of `all`; the largest are to be at least `smallest`. Once all are there, and not one by one as they are measured: a processor
    /// waits where it reads as a whole what it has written in parts a moment ago.
    pub(super) fn of(all: &[Measures], smallest: Measures) -> Self {
        let mut summary = Self { largest: smallest, sums: [0.0; 8], counts: [0.0; 8] };
        all.iter().for_each(|measured| summary.add(measured));
        summary
    }

    fn add(&mut self, measured: &Measures) {
        for (i, &value) in measured.iter().enumerate() {
            let (value, count) = if value.is_nan() { (0.0, 0.0) } else { (value, 1.0) };
            self.largest[i] = if value > self.largest[i] { value } else { self.largest[i] };
            self.sums[i] += value;
            self.counts[i] += count;
        }
    }

    /// The largest of each.
    pub(super) fn largest(&self) -> Measures {
        self.largest
    }

    /// The mean of what is known of each, which stands for what is not: unknown is neither idle nor full. What nobody knows is 0.
    pub(super) fn means(&self) -> Measures {
        std::array::from_fn(|i| self.sums[i] / self.counts[i].max(1.0))
    }
}

/// The sum of the measures of one candidate, each times its factor.
pub(super) fn weigh(measured: &Measures, means: &Measures, factors: &Measures) -> f32 {
    let parts: Measures =
        std::array::from_fn(|i| factors[i] * if measured[i].is_nan() { means[i] } else { measured[i] });
    let [a, b, c, d, e, f, g, h] = parts;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_what_is_not_known_stands_the_mean_of_what_is() {
        let rows = [known(Some(2.0)), known(None), known(Some(4.0))].map(|first| {
            let mut measured = [0.0; 8];
            (measured[0], measured[1]) = (first, f32::NAN);
            measured
        });
        let summary = Summary::of(&rows, [1.0; 8]);
        let (means, largest) = (summary.means(), summary.largest());
        assert_eq!((means[0], means[1], largest[0], largest[1]), (3.0, 0.0, 4.0, 1.0));
        assert_eq!(rows.map(|measured| weigh(&measured, &means, &[2.0; 8])), [4.0, 6.0, 8.0]);
    }
}
