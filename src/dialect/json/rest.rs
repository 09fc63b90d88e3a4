//! [`Rest`]: the fields of an object that nobody knows.

use serde::de::MapAccess;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Object;

/// Bytes of JSON that are kept; what goes beyond is ignored.
const LIMIT: usize = 16 << 10;

/// Takes every field, so it stands last. `null` is the same as absent.
#[derive(Default)]
pub(in crate::dialect) struct Rest {
    pub(in crate::dialect) fields: Map<String, Value>,
    bytes: usize,
}

impl Object for Rest {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        // As text first, for a few bytes of it can be many of values.
        let text: Box<RawValue> = map.next_value()?;
        let bytes = self.bytes + key.len() + text.get().len();
        if bytes <= LIMIT
            && let Ok(value) = serde_json::from_str::<Value>(text.get())
            && !value.is_null()
        {
            self.fields.insert(key.to_owned(), value);
            self.bytes = bytes;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::json::{self, object};

    object! {
        struct Body {
            "model" => model: String,
            ..rest: Rest,
        }
    }

    fn rest(body: &Value) -> Value {
        let body: Body = json::read(body.to_string().as_bytes()).unwrap();
        assert_eq!(body.model.as_deref(), Some("m"));
        body.rest.fields.into()
    }

    #[test]
    fn what_is_not_known_is_kept_in_its_order_and_what_is_known_is_not() {
        let body = json!({"z": {"a": [1, null]}, "Model": "m", "b": 1.5, "c": null});
        assert_eq!(rest(&body).to_string(), r#"{"z":{"a":[1,null]},"b":1.5}"#);
    }

    #[test]
    fn what_is_too_long_is_ignored() {
        let body = json!({"long": "x".repeat(LIMIT), "model": "m", "short": 1});
        assert_eq!(rest(&body), json!({"short": 1}));
        let deep = format!("{{\"deep\":{}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(json::read::<Body>(deep.as_bytes()).unwrap().rest.fields, Map::new());
    }
}
