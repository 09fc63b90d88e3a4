//! [`Work`]: what a node does in one piece, by a request and one answer.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::generation::{Embedding, Embeddings, Failure, Ranking, Scores};
use crate::node::Node;
use crate::node::protocol::{Garbled, Request, same_number, unsupported};
use crate::routing::Digest;

/// Something to be asked of a node.
pub(super) trait Work: Send + Sync {
    /// What comes of it.
    type Answer: Send;

    /// Whether two nodes may be asked for it at the same time.
    const CAN_BE_HEDGED: bool = false;

    /// Why it cannot be asked of `node`; others may take it.
    fn objection(&self, _node: &Node) -> Option<Failure> {
        None
    }

    /// As strategies see it.
    fn digest(&self) -> Digest {
        Digest::default()
    }

    /// The node's own request for it.
    fn request(&self, node: &Node) -> Result<Request, Failure>;

    /// What the node answered.
    fn answer(&self, node: &Node, body: &[u8]) -> Result<Self::Answer, Garbled>;
}

impl Work for Embedding {
    type Answer = Embeddings;
    const CAN_BE_HEDGED: bool = true;

    fn digest(&self) -> Digest {
        Digest::of_bytes(&self.model, self.inputs.concat().as_bytes())
    }

    fn request(&self, node: &Node) -> Result<Request, Failure> {
        Ok(node.protocol.embed(self, &node.name_of(&self.model)))
    }

    fn answer(&self, node: &Node, body: &[u8]) -> Result<Embeddings, Garbled> {
        let embeddings = node.protocol.embeddings(body)?;
        same_number(embeddings.vectors.len(), self.inputs.len(), "vectors")?;
        Ok(embeddings)
    }
}

impl Work for Ranking {
    type Answer = Scores;
    const CAN_BE_HEDGED: bool = true;

    fn digest(&self) -> Digest {
        Digest::of_bytes(&self.model, self.documents.concat().as_bytes())
    }

    fn objection(&self, node: &Node) -> Option<Failure> {
        self.request(node).err()
    }

    fn request(&self, node: &Node) -> Result<Request, Failure> {
        node.protocol.rank(self, &node.name_of(&self.model)).ok_or_else(|| unsupported("rerank"))
    }

    fn answer(&self, node: &Node, body: &[u8]) -> Result<Scores, Garbled> {
        node.protocol.scores(body, self.documents.len())
    }
}

/// A question of [`crate::generation::seam`] that the other protocols do not have.
pub(super) struct Seam<Q, A> {
    pub path: &'static str,
    pub question: Q,
    pub answer: PhantomData<fn() -> A>,
}

impl<Q: Serialize + Send + Sync, A: DeserializeOwned + Send> Work for Seam<Q, A> {
    type Answer = A;

    fn objection(&self, node: &Node) -> Option<Failure> {
        (!node.protocol.is_seam()).then(|| unsupported(self.path.trim_start_matches('/')))
    }

    fn request(&self, _node: &Node) -> Result<Request, Failure> {
        Ok(Request::post(self.path, &self.question))
    }

    fn answer(&self, _node: &Node, body: &[u8]) -> Result<A, Garbled> {
        Ok(serde_json::from_slice(body)?)
    }
}
