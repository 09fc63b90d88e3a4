//! Structured output: whatever the schema, what a model without sense says under it obeys it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::fixture::Fixture;
use crate::harness::Server;

/// `PROPTEST_CASES` asks for more, as it does where proptest runs.
const SCHEMAS: usize = 200;
const AT_ONCE: usize = 8;
/// More than any of the schemas needs, white space included; an answer that gets there did not end by itself.
const MOST_TOKENS: u32 = 8192;

/// Makes schemas whose values have an end: every text, list and object is bounded.
struct Schemas {
    random: StdRng,
    /// Names in `$defs`.
    definitions: Vec<String>,
}

impl Schemas {
    /// The schema of this seed.
    fn whole(seed: u64) -> Value {
        let mut schemas = Self { random: StdRng::seed_from_u64(seed), definitions: Vec::new() };
        let mut definitions = Map::new();
        for number in 0..schemas.random.random_range(0..3) {
            let (name, definition) = (format!("d{number}"), schemas.any(1));
            definitions.insert(name.clone(), definition);
            schemas.definitions.push(name);
        }
        let mut whole = if schemas.random.random_bool(0.7) { schemas.object(2) } else { schemas.any(2) };
        if !definitions.is_empty() {
            whole["$defs"] = definitions.into();
        }
        whole
    }

    fn any(&mut self, depth: usize) -> Value {
        if depth == 0 || self.random.random_bool(0.3) {
            return self.leaf();
        }
        match self.random.random_range(0..8) {
            0..3 => self.object(depth - 1),
            3 => self.array(depth - 1),
            4 => self.keyed(depth - 1),
            5 => self.alternatives(depth - 1),
            6 => match self.definitions.choose(&mut self.random) {
                Some(name) => json!({ "$ref": format!("#/$defs/{name}") }),
                None => self.leaf(),
            },
            _ => self.tuple(depth - 1),
        }
    }

    fn leaf(&mut self) -> Value {
        match self.random.random_range(0..9) {
            0 => json!({ "type": "boolean" }),
            1 => json!({ "type": "null" }),
            2 => json!({ "const": self.value() }),
            3 => {
                let values: Vec<Value> = (0..self.random.random_range(1..5)).map(|_| self.value()).collect();
                json!({ "enum": values })
            }
            4 => self.integer(),
            5 => self.number(),
            6 => self.text(),
            7 => {
                let patterns = [
                    "^[a-z]{2,5}$",
                    "^(a|b)*c{1,3}$",
                    "^\\d{3}-\\d{2}$",
                    "^.{0,4}$",
                    "^[^\"\\\\]{1,3}$",
                    "^é?x\\.y$",
                ];
                let longest = self.random.random_range(6..12);
                json!({ "type": "string", "pattern": patterns.choose(&mut self.random), "maxLength": longest })
            }
            _ => {
                let formats =
                    ["date", "time", "date-time", "duration", "uuid", "ipv4", "ipv6", "email", "hostname"];
                json!({ "type": "string", "format": formats.choose(&mut self.random), "maxLength": 40 })
            }
        }
    }

    /// For `const` and `enum`.
    fn value(&mut self) -> Value {
        let number = self.random.random_range(-1000..1000);
        let values = [
            json!(number),
            json!(f64::from(number) / 8.0),
            json!("é \"quoted\"\n\\ 🦙"),
            json!(""),
            json!(null),
            json!(number > 0),
            json!([number, [], {}]),
            json!({ "b": 1, "a": { "c": "d" } }),
        ];
        values.choose(&mut self.random).cloned().expect("there are some")
    }

    fn integer(&mut self) -> Value {
        let least: i64 = self.random.random_range(-2000..2000);
        let most = least + self.random.random_range(2..3000);
        match self.random.random_range(0..3) {
            0 => json!({ "type": "integer", "minimum": least, "maximum": most }),
            1 => json!({ "type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": most }),
            _ => {
                let factor = self.random.random_range(1..(most - least));
                json!({ "type": "integer", "minimum": least, "maximum": most, "multipleOf": factor })
            }
        }
    }

    fn number(&mut self) -> Value {
        let least = self.random.random_range(-100.0..100.0_f64).round() / 4.0;
        let most = least + f64::from(self.random.random_range(1..400)) / 8.0;
        match self.random.random_bool(0.5) {
            true => json!({ "type": "number", "minimum": least, "maximum": most }),
            false => json!({ "type": "number", "exclusiveMinimum": least, "exclusiveMaximum": most }),
        }
    }

    fn text(&mut self) -> Value {
        let least = self.random.random_range(0..6);
        json!({ "type": "string", "minLength": least, "maxLength": least + self.random.random_range(0..8) })
    }

    fn object(&mut self, depth: usize) -> Value {
        let names = ["id", "a b", "é", "$ref", "quo\"te", "type"];
        let mut names: Vec<&str> = names.choose_multiple(&mut self.random, 4).copied().collect();
        names.truncate(self.random.random_range(0..=4));
        let properties: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), self.any(depth))).collect();
        let required: Vec<&str> = names.into_iter().filter(|_| self.random.random_bool(0.6)).collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }

    /// An object whose keys the model makes up. It needs one at most: a key that is written twice counts twice while the answer is
    /// made, and once when it is read.
    fn keyed(&mut self, depth: usize) -> Value {
        let least = self.random.random_range(0..2);
        let mut object = json!({ "type": "object", "minProperties": least, "maxProperties": least + 2 });
        object["patternProperties"] = json!({ "^k[a-z]{6}$": self.any(depth) });
        object["additionalProperties"] = json!(false);
        object
    }

    fn array(&mut self, depth: usize) -> Value {
        let least = self.random.random_range(0..3);
        let most = least + self.random.random_range(0..3);
        json!({ "type": "array", "items": self.any(depth), "minItems": least, "maxItems": most })
    }

    fn tuple(&mut self, depth: usize) -> Value {
        let items: Vec<Value> = (0..self.random.random_range(1..4)).map(|_| self.any(depth)).collect();
        let least = self.random.random_range(0..=items.len());
        json!({ "type": "array", "prefixItems": items, "items": false, "minItems": least })
    }

    fn alternatives(&mut self, depth: usize) -> Value {
        let mut either = vec![self.object(depth), self.array(depth), self.integer(), self.text()];
        either.remove(self.random.random_range(0..4));
        match self.random.random_range(0..3) {
            0 => json!({ "anyOf": either }),
            // Of different types: no value is two of them.
            1 => json!({ "oneOf": either }),
            _ => json!({ "type": ["string", "null", "boolean"], "maxLength": 5 }),
        }
    }
}

/// Why the answer under the schema of this seed is not what it should be, if it is not.
fn complaint(server: &Server, seed: u64) -> Option<String> {
    let schema = Schemas::whole(seed);
    let body = json!({
        "model": "tiny", "prompt": "Speak.", "format": schema, "stream": false,
        "options": { "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": seed, "num_predict": MOST_TOKENS },
    });
    let answer = server.post("/api/generate", &body).json().expect("JSON");
    let fails = |reason: &str| Some(format!("seed {seed}: {reason}\n  schema: {schema}\n  answer: {answer}"));
    if answer["done_reason"] != "stop" {
        return fails("did not end");
    }
    let Some(value) = answer["response"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return fails("is no JSON");
    };
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    validator.validate(&value).err().and_then(|error| fails(&error.to_string()))
}

#[test]
fn every_answer_obeys_its_schema() {
    let server = Server::with_fixture(Fixture::TinyLlama, &format!("parallel: {AT_ONCE}, preload: true"));
    server.ready_worker("tiny");
    let count = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(SCHEMAS);
    let next = AtomicUsize::new(0);
    let seeds =
        || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < count));
    let run = || seeds().filter_map(|seed| complaint(&server, seed as u64)).collect::<Vec<_>>();
    let complaints: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a verdict")).collect()
    });
    assert!(complaints.is_empty(), "{} of {count}:\n{}", complaints.len(), complaints.join("\n"));
}
