//! [`pointer`]: where in a JSON schema the mistake is, which llguidance does not say.

use serde_json::{Map, Value};

/// Keywords whose value is a schema, a list of schemas, or schemas by name.
const APPLICATORS: [&str; 14] = [
    "$defs",
    "definitions",
    "properties",
    "patternProperties",
    "additionalProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "contains",
    "propertyNames",
];

/// Parts of a schema that are tried: enough for any that a person wrote.
const MOST_TRIES: usize = 200;

/// The JSON Pointer (RFC 6901) of the innermost part of `schema` that is refused for the same `reason` as all of it, down to the
/// keyword where that is one alone. `refusal` compiles a schema and says why it cannot be. `None` where it cannot be told.
pub fn pointer(schema: &Value, reason: &str, refusal: impl Fn(&Value) -> Option<String>) -> Option<String> {
    let definitions: Map<String, Value> = ["$defs", "definitions"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), schema.get(name)?.clone())))
        .collect();
    let mut tries = MOST_TRIES;
    // References of a part lead to the definitions of the whole.
    let mut refused_alike = |mut part: Value| {
        if let Value::Object(fields) = &mut part {
            fields.extend(definitions.clone());
        }
        tries = tries.checked_sub(1)?;
        Some(refusal(&part).is_some_and(|other| same(&other, reason)))
    };
    let mut pointer = String::new();
    let mut innermost = schema;
    while let Some((step, part)) =
        parts(innermost).into_iter().find(|(_, part)| refused_alike((*part).clone()) == Some(true))
    {
        pointer.push_str(&step);
        innermost = part;
    }
    let keywords = innermost.as_object().into_iter().flat_map(Map::keys);
    let guilty = |keyword: &&String| {
        let mut others = innermost.clone();
        others.as_object_mut().and_then(|fields| fields.shift_remove(*keyword));
        refused_alike(others) == Some(false)
    };
    if let Some(keyword) = keywords.into_iter().find(guilty) {
        pointer.push_str(&step(keyword));
    }
    (!pointer.is_empty()).then_some(pointer)
}

/// A step of a pointer.
fn step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Whether two refusals are about the same thing: llguidance puts what led there on lines before or after it.
fn same(a: &str, b: &str) -> bool {
    a.lines().next() == b.lines().next()
}

/// The schemas right inside of a schema, and the steps of a pointer that lead to them.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let mut parts = Vec::new();
    for keyword in APPLICATORS {
        match schema.get(keyword) {
            Some(Value::Array(list)) => {
                parts.extend(
                    list.iter().enumerate().map(|(index, part)| (format!("/{keyword}/{index}"), part)),
                );
            }
            Some(Value::Object(named)) if takes_names(keyword) => {
                parts.extend(named.iter().map(|(name, part)| (format!("/{keyword}{}", step(name)), part)));
            }
            Some(part @ Value::Object(_)) => parts.push((format!("/{keyword}"), part)),
            _ => {}
        }
    }
    parts
}

fn takes_names(keyword: &str) -> bool {
    matches!(keyword, "$defs" | "definitions" | "properties" | "patternProperties")
}
