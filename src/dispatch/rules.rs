//! [`Rules`]: what dispatch goes by and can go by otherwise from one request to the next.

use std::sync::Arc;

use super::RetryConfig;
use super::budget::Budget;
use crate::routing::{self, Decisions, RoutingConfig, Strategy};

/// What the config says of routing and retries. A request keeps those that it began with.
pub(super) struct Rules {
    routing: RoutingConfig,
    pub strategy: Arc<dyn Strategy>,
    pub decisions: Arc<Decisions>,
    pub retry: RetryConfig,
    pub budget: Budget,
}

impl Rules {
    pub(super) fn new(routing: &RoutingConfig, retry: RetryConfig) -> Self {
        Self {
            routing: routing.clone(),
            strategy: routing::build(routing).into(),
            decisions: Arc::new(Decisions::new(routing.decisions)),
            budget: Budget::new(retry.budget),
            retry,
        }
    }

    /// The same with other settings; what does not change is kept with all it knows.
    pub(super) fn renewed(&self, routing: &RoutingConfig, retry: RetryConfig) -> Self {
        let new = Self::new(routing, retry);
        if *routing != self.routing {
            return new;
        }
        Self { strategy: Arc::clone(&self.strategy), decisions: Arc::clone(&self.decisions), ..new }
    }
}
