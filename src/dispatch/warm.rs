//! Having answers made before anybody asks for them, so that they are kept.

use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Claim, Dispatch};
use crate::dialect::{self, Endpoint, Work};
use crate::error::Error;
use crate::generation::Priority;

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Warmed {
    /// Requests that were answered.
    pub done: usize,
    /// The others.
    pub failed: Vec<Failed>,
}

/// A request that was not answered.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// Its line, from 1.
    pub line: usize,
    /// Why.
    pub error: String,
}

/// A request as a client would send it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    body: Value,
}

impl Dispatch {
    /// Runs requests, one `{"path": ..., "body": {...}}` a line, one after the other and behind everybody else's. They are those of
    /// a client without a key. Dropping the future ends it.
    pub async fn warm(self: &Arc<Self>, lines: &[u8]) -> Warmed {
        let mut warmed = Warmed::default();
        for (number, line) in (1..).zip(lines.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match self.warm_one(line).await {
                Ok(()) => warmed.done += 1,
                Err(error) => warmed.failed.push(Failed { line: number, error: error.to_string() }),
            }
        }
        warmed
    }

    async fn warm_one(self: &Arc<Self>, line: &[u8]) -> Result<(), Error> {
        let line: Line = serde_json::from_slice(line).map_err(|error| Error::invalid(error.to_string()))?;
        let endpoint = Endpoint::of(&Method::POST, &line.path)?;
        let mut call = dialect::parse(&endpoint, line.body.to_string().as_bytes())?;
        let target = self.target(&mut call)?;
        // Nobody's habit is to be learned from it.
        let claim = Claim { priority: Priority::LOW, is_expected: true, ..Claim::default() };
        match call.work {
            Work::Generate(generations) => {
                for (choice, mut generation) in generations.into_iter().enumerate() {
                    generation.priority = Priority::LOW;
                    let mut answer = self.generate(&target, Claim { choice, ..claim.clone() }, generation)?;
                    while answer.next().await?.is_some() {}
                }
                Ok(())
            }
            Work::Embed(embedding) => Box::pin(self.embed(&target, &claim, embedding)).await.map(drop),
            _ => Err(Error::invalid("only texts and vectors are kept")),
        }
    }
}
