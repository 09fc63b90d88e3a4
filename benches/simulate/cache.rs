//! What a node remembers of prompts: blocks of KV cells by the hashes of what they are of, the least recently used leave first.

use std::collections::{BTreeMap, HashMap};

use arriero::routing::Prefix;

pub struct Cache {
    capacity: f64,
    used: f64,
    /// Tokens and time by hash.
    blocks: HashMap<u64, (f64, u64)>,
    by_age: BTreeMap<u64, u64>,
    clock: u64,
}

impl Cache {
    /// Of so many tokens.
    pub fn new(capacity: f64) -> Self {
        Self { capacity, used: 0.0, blocks: HashMap::new(), by_age: BTreeMap::new(), clock: 0 }
    }

    /// The part of a prompt that is there.
    pub fn share(&self, prefix: &Prefix) -> f64 {
        let there = prefix.hashes().iter().take_while(|hash| self.blocks.contains_key(hash)).count();
        f64::from(prefix.share(there))
    }

    /// The prompt, of so many tokens, has been read or used.
    pub fn keep(&mut self, prefix: &Prefix, tokens: f64) {
        // From the end, so that what others hang on is newer.
        for (place, hash) in prefix.hashes().iter().enumerate().rev() {
            self.clock += 1;
            let share = f64::from(prefix.share(place + 1) - prefix.share(place));
            if let Some((tokens, at)) = self.blocks.insert(*hash, (share * tokens, self.clock)) {
                self.used -= tokens;
                self.by_age.remove(&at);
            }
            self.used += share * tokens;
            self.by_age.insert(self.clock, *hash);
        }
        while self.used > self.capacity {
            let Some((_, hash)) = self.by_age.pop_first() else { break };
            if let Some((tokens, _)) = self.blocks.remove(&hash) {
                self.used -= tokens;
            }
        }
    }
}
