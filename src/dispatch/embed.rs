//! Embedding: the inputs that are kept are not computed, those that others are computing at the moment are waited for, the rest is computed.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Claim, Dispatch, Target};
use crate::cache::{self, Wanted};
use crate::error::Error;
use crate::flight::{Claimed, CoalesceMode, Duty, Promise, Route, Source};
use crate::generation::{Embedding, Embeddings, Identity, Scope};

/// The vector of one input.
#[derive(Clone, Debug)]
pub(super) struct Vector {
    numbers: Arc<Vec<f32>>,
    /// Tokens of the input. Nodes count those of a whole request; with several inputs this is its part by length.
    tokens: u64,
    /// How the request it was computed with got to its node.
    route: Arc<Route>,
}

/// Texts are hashed at a stretch up to so many bytes: other streams of the thread must not wait.
const STRETCH: usize = 256 << 10;

/// How often others are waited for: who computes may fail or leave, and so may the one after.
const ROUNDS: usize = 2;

impl Dispatch {
    /// Embeds. Dropping the future cancels what others do not wait for; those that do compute it themselves.
    pub async fn embed(
        &self,
        target: &Target,
        claim: &Claim,
        mut embedding: Embedding,
    ) -> Result<(Embeddings, Route, Source), Error> {
        let _hold = target.model.as_ref().map(|model| self.supervisor.hold(model, None));
        embedding.model = target.name.to_string();
        let computed = if claim.control.may_read() { Source::Miss } else { Source::Bypass };
        let is_shared = self.sharing.terms().mode(target, claim) != CoalesceMode::Off;
        if embedding.inputs.is_empty() || !(is_shared || self.vectors.is_on()) {
            let (embeddings, route) = self.compute(target, claim, embedding).await?;
            return Ok((embeddings, route, computed));
        }
        let identities = self.identities(target, claim, &embedding).await?;
        let mut vectors = self.kept_vectors(target, claim, &identities);
        let is_kept = vectors.iter().all(Option::is_some);
        if claim.control.only_if_cached && !is_kept {
            return Err(Error::NotKept);
        }
        let mut source = if is_kept { Source::Hit } else { Source::Coalesced };
        for _ in 0..if is_shared { ROUNDS } else { 0 } {
            let (ours, theirs) = self.share_out(&identities, &vectors);
            if !ours.is_empty() {
                source = computed;
                let (places, duties): (Vec<usize>, Vec<_>) = ours.into_iter().unzip();
                let found = self.compute_some(target, claim, &embedding, &places).await?;
                for ((at, duty), vector) in places.into_iter().zip(duties).zip(found) {
                    self.keep_vector(target, claim, &identities[at], &vector);
                    vectors[at] = Some(vector.clone());
                    duty.done(vector);
                }
            }
            for (at, promise) in theirs {
                vectors[at] = promise.kept().await;
            }
        }
        let left: Vec<usize> =
            (0..).zip(&vectors).filter(|(_, known)| known.is_none()).map(|(at, _)| at).collect();
        if !left.is_empty() {
            source = computed;
            let found = self.compute_some(target, claim, &embedding, &left).await?;
            for (at, vector) in left.into_iter().zip(found) {
                self.keep_vector(target, claim, &identities[at], &vector);
                vectors[at] = Some(vector);
            }
        }
        if source == Source::Coalesced {
            self.metrics.coalesced.with_label_values(&[&target.name]).inc();
            self.let_in(target, claim);
        }
        let (embeddings, route) = together(vectors.into_iter().flatten())?;
        Ok((embeddings, route, source))
    }

    /// The vectors that are kept, one place per input.
    fn kept_vectors(&self, target: &Target, claim: &Claim, identities: &[Identity]) -> Vec<Option<Vector>> {
        if !(self.vectors.is_on() && claim.control.may_read()) {
            return vec![None; identities.len()];
        }
        let (terms, now) = (self.sharing.terms(), SystemTime::now());
        let tenant = terms.tenant(claim);
        let find = |identity| {
            let max_age = claim.control.max_age;
            let kept = self.vectors.find(&Wanted { identity, model: &target.name, tenant, now, max_age })?;
            let age = now.duration_since(kept.created).unwrap_or_default();
            Some(Vector {
                numbers: kept.numbers,
                tokens: kept.tokens,
                route: Arc::new(Route::kept(kept.node, age)),
            })
        };
        identities.iter().map(find).collect()
    }

    fn keep_vector(&self, target: &Target, claim: &Claim, identity: &Identity, vector: &Vector) {
        if !self.vectors.is_on() || claim.control.no_store {
            return;
        }
        let kept = cache::Vector {
            numbers: Arc::clone(&vector.numbers),
            tokens: vector.tokens,
            node: Arc::clone(&vector.route.node),
            created: SystemTime::now(),
        };
        self.vectors.keep(identity, &target.name, self.sharing.terms().tenant(claim), kept);
    }

    /// What makes each input the same as others.
    async fn identities(
        &self,
        target: &Target,
        claim: &Claim,
        embedding: &Embedding,
    ) -> Result<Vec<Identity>, Error> {
        let (terms, digest) = (self.sharing.terms(), self.digest_of(target));
        let scope = Scope { digest: &digest, tenant: terms.tenant(claim), choice: 0 };
        let (mut identities, mut stretch) = (Vec::with_capacity(embedding.inputs.len()), 0);
        for input in &embedding.inputs {
            stretch += input.len();
            if stretch > STRETCH {
                stretch = 0;
                tokio::task::yield_now().await;
            }
            identities.push(Identity::of_input(embedding, input, scope).map_err(Error::internal)?);
        }
        Ok(identities)
    }

    /// Of the inputs without a vector: those that are for this request to compute, and those that another one does.
    fn share_out(&self, identities: &[Identity], vectors: &[Option<Vector>]) -> (Vec<Ours>, Vec<Theirs>) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let missing = (0..).zip(identities).zip(vectors).filter(|(_, known)| known.is_none());
        for ((at, identity), _) in missing {
            match self.sharing.vectors.claim(identity) {
                Claimed::Ours(duty) => ours.push((at, duty)),
                Claimed::Theirs(promise) => theirs.push((at, promise)),
            }
        }
        (ours, theirs)
    }

    /// The vectors of the inputs at `places`.
    async fn compute_some(
        &self,
        target: &Target,
        claim: &Claim,
        embedding: &Embedding,
        places: &[usize],
    ) -> Result<Vec<Vector>, Error> {
        let inputs: Vec<_> = places.iter().filter_map(|at| embedding.inputs.get(*at)).cloned().collect();
        let lengths: Vec<_> = inputs.iter().map(String::len).collect();
        let (Embeddings { vectors, prompt_tokens }, route) =
            self.compute(target, claim, Embedding { inputs, ..embedding.clone() }).await?;
        let route = Arc::new(route);
        let vector =
            |(numbers, tokens)| Vector { numbers: Arc::new(numbers), tokens, route: Arc::clone(&route) };
        Ok(vectors.into_iter().zip(parts(prompt_tokens, &lengths)).map(vector).collect())
    }

    async fn compute(
        &self,
        target: &Target,
        claim: &Claim,
        embedding: Embedding,
    ) -> Result<(Embeddings, Route), Error> {
        let mut exchange = self.asking(embedding, claim);
        let (embeddings, route) = self.on_a_node(target, claim, &mut exchange).await?;
        self.count_tokens(&target.name, "prompt", embeddings.prompt_tokens);
        Ok((embeddings, route))
    }
}

/// An input by its place, for this request to compute.
type Ours = (usize, Duty<Vector>);
/// One that another request computes.
type Theirs = (usize, Promise<Vector>);

/// `total` in parts by the lengths, which together are all of it.
fn parts(total: u64, lengths: &[usize]) -> Vec<u64> {
    // An empty text has a token or two as well.
    let weight = |length: &usize| *length as u128 + 1;
    let (all, mut seen, mut given): (u128, u128, u128) = (lengths.iter().map(weight).sum(), 0, 0);
    let part = |length| {
        seen += weight(length);
        let until_here = u128::from(total) * seen / all;
        u64::try_from(until_here - std::mem::replace(&mut given, until_here)).unwrap_or(u64::MAX)
    };
    lengths.iter().map(part).collect()
}

fn together(vectors: impl Iterator<Item = Vector>) -> Result<(Embeddings, Route), Error> {
    let mut embeddings = Embeddings::default();
    let mut told: Option<Arc<Route>> = None;
    for Vector { numbers, tokens, route } in vectors {
        embeddings.vectors.push(Arc::unwrap_or_clone(numbers));
        embeddings.prompt_tokens += tokens;
        // What was computed says more than what was kept, and of that the oldest.
        let is_better = |told: &Arc<Route>| match (told.age, route.age) {
            (Some(told), Some(age)) => age > told,
            (told, age) => told.is_some() && age.is_none(),
        };
        if told.as_ref().is_none_or(is_better) {
            told = Some(route);
        }
    }
    let route = told.ok_or_else(|| Error::internal("vectors of no inputs"))?;
    Ok((embeddings, Arc::unwrap_or_clone(route)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_of_a_count_are_the_whole(total in any::<u64>(), lengths in prop::collection::vec(0usize..5000, 1..20)) {
            let parts = parts(total, &lengths);
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(total));
            prop_assert_eq!(parts.len(), lengths.len());
        }
    }

    #[test]
    fn the_only_input_has_all_tokens() {
        assert_eq!(parts(7, &[100]), [7]);
        assert_eq!(parts(9, &[10, 10, 10]), [3, 3, 3]);
    }
}
