//! Finds the part of a JSON schema that makes it unusable.

use serde_json::Value;

/// Parts looked at, at most: the search is for a person, and must not cost more than the mistake is worth.
const MAX_PROBES: usize = 256;

/// Keywords whose value is a schema, a list of schemas, or schemas by name.
const KEYWORDS: [&str; 20] = [
    // First, because others refer to them.
    "$defs",
    "definitions",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "dependentSchemas",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
];

/// Keywords whose values are schemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];

/// The smallest part of `schema` that `compile` refuses by itself, as a path that begins with `place`, and why. `reason` is why it
/// refused the whole.
pub fn find(
    schema: &Value,
    place: String,
    reason: String,
    compile: impl Fn(&Value) -> Result<(), String>,
) -> (String, String) {
    let (mut part, mut place, mut reason) = (schema.clone(), place, reason);
    let mut probes = 0;
    'descend: loop {
        for (step, inner) in parts(&part) {
            probes += 1;
            if probes > MAX_PROBES {
                return (place, reason);
            }
            if let Err(why) = compile(&with_definitions(&inner, schema)) {
                (part, place, reason) = (inner, place + &step, why);
                continue 'descend;
            }
        }
        return (place, reason);
    }
}

/// `part` with the definitions of the whole, to which it may refer.
fn with_definitions(part: &Value, whole: &Value) -> Value {
    let mut part = part.clone();
    if let Value::Object(fields) = &mut part {
        for key in ["$defs", "definitions"] {
            if let Some(schemas) = whole.get(key) {
                fields.entry(key).or_insert_with(|| schemas.clone());
            }
        }
    }
    part
}

/// The schemas directly inside of `schema`, with the way there.
fn parts(schema: &Value) -> Vec<(String, Value)> {
    let mut parts = Vec::new();
    for keyword in KEYWORDS {
        match schema.get(keyword) {
            Some(Value::Object(named)) if NAMED.contains(&keyword) => {
                parts.extend(named.iter().map(|(name, part)| (format!(".{keyword}{}", step(name)), part)));
            }
            Some(part @ Value::Object(_)) => parts.push((format!(".{keyword}"), part)),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                parts.extend(items.map(|(index, part)| (format!(".{keyword}[{index}]"), part)));
            }
            _ => {}
        }
    }
    parts
        .into_iter()
        .filter(|(_, part)| !part.is_boolean())
        .map(|(step, part)| (step, part.clone()))
        .collect()
}

/// A name as a step of a path.
fn step(name: &str) -> String {
    let is_plain = !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    if is_plain { format!(".{name}") } else { format!("[{}]", Value::from(name)) }
}
