//! Embedding: the inputs that others are computing at the moment are waited for, the rest is computed.

use std::sync::Arc;

use super::{Claim, Dispatch, Target};
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
        if embedding.inputs.is_empty() || self.sharing.rules().mode(target, claim) == CoalesceMode::Off {
            let (embeddings, route) = self.compute(target, claim, embedding).await?;
            return Ok((embeddings, route, Source::Miss));
        }
        let identities = self.identities(target, claim, &embedding).await?;
        let mut vectors: Vec<Option<Vector>> = vec![None; identities.len()];
        let mut source = Source::Coalesced;
        for _ in 0..ROUNDS {
            let (ours, theirs) = self.share_out(&identities, &vectors);
            if !ours.is_empty() {
                source = Source::Miss;
                let (places, duties): (Vec<usize>, Vec<_>) = ours.into_iter().unzip();
                let computed = self.compute_some(target, claim, &embedding, &places).await?;
                for ((at, duty), vector) in places.into_iter().zip(duties).zip(computed) {
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
            source = Source::Miss;
            let computed = self.compute_some(target, claim, &embedding, &left).await?;
            left.into_iter().zip(computed).for_each(|(at, vector)| vectors[at] = Some(vector));
        }
        if source == Source::Coalesced {
            self.metrics.coalesced.with_label_values(&[&target.name]).inc();
            self.let_in(target, claim);
        }
        let (embeddings, route) = together(vectors.into_iter().flatten())?;
        Ok((embeddings, route, source))
    }

    /// What makes each input the same as others.
    async fn identities(
        &self,
        target: &Target,
        claim: &Claim,
        embedding: &Embedding,
    ) -> Result<Vec<Identity>, Error> {
        let (rules, digest) = (self.sharing.rules(), self.digest_of(target));
        let scope = Scope { digest: &digest, tenant: rules.tenant(claim), choice: 0 };
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
        let mut exchange = self.asking(embedding);
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
    let (mut embeddings, mut first) = (Embeddings::default(), None);
    for Vector { numbers, tokens, route } in vectors {
        embeddings.vectors.push(Arc::unwrap_or_clone(numbers));
        embeddings.prompt_tokens += tokens;
        first.get_or_insert(route);
    }
    let route = first.ok_or_else(|| Error::internal("vectors of no inputs"))?;
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
