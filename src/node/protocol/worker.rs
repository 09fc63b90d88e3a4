//! The worker protocol: what is canonical goes over the wire as it is ([`crate::generation::seam`]).

use bytes::Bytes;

use super::{Continuation, Decode, Garbled, Lines, Offer, Protocol, Request};
use crate::generation::seam::{ErrorBody, Vitals};
use crate::generation::{Embedding, Embeddings, Event, Failure, FailureCode, Generation, Ranking, Scores};
use crate::node::Signal;

#[derive(Debug)]
pub(super) struct Worker;

impl Protocol for Worker {
    fn is_seam(&self) -> bool {
        true
    }

    fn objection(&self, _generation: &Generation) -> Option<Failure> {
        None
    }

    /// The model has no other name: a worker runs one.
    fn generate(&self, generation: &Generation, _model: &str, _begun: Option<&str>) -> Request {
        Request::post("/generate", generation)
    }

    fn decoder(&self, _generation: &Generation) -> Box<dyn Decode> {
        Box::new(Events)
    }

    fn continuation(&self) -> Continuation {
        Continuation::Exact
    }

    fn embed(&self, embedding: &Embedding, _model: &str) -> Request {
        Request::post("/embed", embedding)
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Garbled> {
        Ok(serde_json::from_slice(body)?)
    }

    fn rank(&self, ranking: &Ranking, _model: &str) -> Option<Request> {
        Some(Request::post("/rank", ranking))
    }

    fn scores(&self, body: &[u8], _documents: usize) -> Result<Scores, Garbled> {
        Ok(serde_json::from_slice(body)?)
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => body.error,
            Err(_) => Failure {
                code: if status == 503 { FailureCode::Unavailable } else { FailureCode::Internal },
                message: format!("the node answered {status} without a reason"),
            },
        }
    }

    fn ask_offers(&self) -> Option<Request> {
        None
    }

    fn offers(&self, _body: &[u8]) -> Result<Vec<Offer>, Garbled> {
        Ok(Vec::new())
    }

    fn ask_signal(&self) -> Vec<Request> {
        vec![Request::get("/health")]
    }

    fn signal(&self, answers: &[Option<Bytes>]) -> Signal {
        let vitals = answers.iter().flatten().next();
        let vitals = vitals.and_then(|body| serde_json::from_slice::<Vitals>(body).ok());
        vitals.as_ref().map(Signal::from).unwrap_or_default()
    }
}

/// One event per line.
struct Events;

impl Decode for Events {
    fn next(&mut self, lines: &mut Lines) -> Result<Option<Event>, Garbled> {
        let Some(line) = lines.pop() else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generation::{Delta, Done};
    use crate::node::protocol::testing::{decoded, every_cut, generation};

    #[test]
    fn events_are_the_lines_however_they_are_cut() {
        let events = vec![
            Event::Delta(Delta { text: "hé".into(), tokens: vec![1], ..Delta::default() }),
            Event::Done(Done::default()),
        ];
        let wire: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
        every_cut(&Worker, &generation(json!({})), wire.as_bytes(), &events);
        let cut = &wire.as_bytes()[..wire.len() - 4];
        assert_eq!(decoded(&Worker, &generation(json!({})), [cut]).unwrap().len(), 1, "no end");
    }

    #[test]
    fn a_refusal_is_the_workers_or_its_status() {
        let failure = Failure { code: FailureCode::ContextLength, message: "long".into() };
        let body = serde_json::to_vec(&ErrorBody { error: failure.clone() }).unwrap();
        assert_eq!(Worker.refusal(400, &body), failure);
        assert_eq!(Worker.refusal(503, b"?").code, FailureCode::Unavailable);
        assert_eq!(Worker.refusal(500, b"").code, FailureCode::Internal);
    }

    #[test]
    fn its_health_is_its_signal() {
        let vitals =
            Vitals { busy: 2, waiting: 1, kv_used: 35, kv_busy: 30, kv_total: 40, ..Vitals::default() };
        let signal = Worker.signal(&[Some(serde_json::to_vec(&vitals).unwrap().into())]);
        assert_eq!((signal.active, signal.queue, signal.kv), (Some(2), Some(1), Some(0.75)));
        assert_eq!(signal.keeps, Some(40));
        assert_eq!(Worker.signal(&[None]), Signal::default());
    }
}
