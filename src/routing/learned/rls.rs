//! [`Rls`]: recursive least squares with forgetting (Haykin, Adaptive Filter Theory, chapter 10): a linear regression that takes one
//! observation at a time and believes later ones more.

/// How uncertain a weight is at first, as a variance: large beside what features of about 1 tell.
const INITIAL: f64 = 10.0;
/// Forgetting lets what is not observed grow uncertain without end; beyond this it stops.
const MOST_UNCERTAIN: f64 = 1000.0;

/// Predicts `y` from `N` features of about 1, none of which can make it less: a weight that is learned to be negative counts as none, for
/// where little was observed a line through it leads anywhere.
#[derive(Clone, Copy)]
pub(super) struct Rls<const N: usize> {
    weights: [f64; N],
    /// How uncertain the weights are, and together.
    covariance: [[f64; N]; N],
}

impl<const N: usize> Default for Rls<N> {
    fn default() -> Self {
        let mut covariance = [[0.0; N]; N];
        (0..N).for_each(|i| covariance[i][i] = INITIAL);
        Self { weights: [0.0; N], covariance }
    }
}

impl<const N: usize> Rls<N> {
    pub(super) fn predict(&self, features: &[f64; N]) -> f64 {
        (0..N).map(|i| self.weight(i) * features[i]).sum()
    }

    /// What one more of feature `i` adds.
    pub(super) fn weight(&self, i: usize) -> f64 {
        self.weights.get(i).map_or(0.0, |weight| weight.max(0.0))
    }

    /// Learns one observation; what came before counts `forget` times as much as until now.
    pub(super) fn observe(&mut self, features: &[f64; N], y: f64, forget: f64) {
        let error = y - self.weights.iter().zip(features).map(|(w, x)| w * x).sum::<f64>();
        let spread = self.covariance.map(|row| row.iter().zip(features).map(|(p, x)| p * x).sum::<f64>());
        let scale = forget + spread.iter().zip(features).map(|(p, x)| p * x).sum::<f64>();
        let trace: f64 = (0..N).map(|i| self.covariance[i][i]).sum();
        let forget = if trace > MOST_UNCERTAIN { 1.0 } else { forget };
        for i in 0..N {
            self.weights[i] += spread[i] / scale * error;
            for j in 0..N {
                self.covariance[i][j] = (self.covariance[i][j] - spread[i] * spread[j] / scale) / forget;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_linear_is_found(weights in prop::array::uniform3(0.0..5.0), points in prop::collection::vec(prop::array::uniform2(0.0..2.0), 60)) {
            let mut rls = Rls::<3>::default();
            let y = |x: &[f64; 3]| x.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>();
            for [a, b] in &points {
                let x = [1.0, *a, *b];
                rls.observe(&x, y(&x), 1.0);
            }
            let x = [1.0, 0.7, 1.3];
            prop_assert!((rls.predict(&x) - y(&x)).abs() < 0.2, "{} instead of {}", rls.predict(&x), y(&x));
        }

        #[test]
        fn it_stays_finite(points in prop::collection::vec((prop::array::uniform2(0.0..50.0), 0.0..1000.0), 300)) {
            let mut rls = Rls::<2>::default();
            points.iter().for_each(|(x, y)| rls.observe(x, *y, 0.9));
            (0..3000).for_each(|_| rls.observe(&[1.0, 0.0], 1.0, 0.9));
            prop_assert!(rls.predict(&[1.0, 1.0]).is_finite());
        }
    }

    #[test]
    fn what_was_is_forgotten() {
        let mut rls = Rls::<1>::default();
        (0..1000).for_each(|_| rls.observe(&[1.0], 1.0, 0.98));
        (0..200).for_each(|_| rls.observe(&[1.0], 3.0, 0.98));
        assert!(rls.predict(&[1.0]) > 2.9);
    }
}
