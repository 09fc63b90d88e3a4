//! [`Call`]: a tool call as a model wrote it.

use serde_json::{Map, Value, json};

use super::cursor::Stop;

/// One call.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// The model's own, where it has one.
    pub id: Option<String>,
    /// Of the tool.
    pub name: String,
    /// By parameter.
    pub arguments: Map<String, Value>,
}

impl Call {
    /// From `{"name", "arguments" or "parameters", "id"?}`, alone or as the `function` of an object, as OpenAI has it. Arguments may be
    /// JSON text; none are an empty object.
    pub fn from_json(value: Value) -> Result<Self, Stop> {
        let Value::Object(mut fields) = value else { return Err(Stop::Not) };
        let id = fields.remove("id").and_then(|id| id.as_str().map(str::to_owned));
        if let Some(Value::Object(function)) = fields.remove("function") {
            fields = function;
        }
        let Some(Value::String(name)) = fields.remove("name") else { return Err(Stop::Not) };
        let arguments = fields.remove("arguments").or_else(|| fields.remove("parameters"));
        let arguments = match arguments {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(Value::String(text)) => serde_json::from_str(&text).map_err(|_| Stop::Not)?,
            Some(_) => return Err(Stop::Not),
        };
        Ok(Self { id, name, arguments })
    }

    /// From one such object, or a list of them.
    pub fn all_from_json(value: Value) -> Result<Vec<Self>, Stop> {
        match value {
            Value::Array(items) if items.is_empty() => Err(Stop::Not),
            Value::Array(items) => items.into_iter().map(Self::from_json).collect(),
            single => Ok(vec![Self::from_json(single)?]),
        }
    }

    /// The canonical form; `id` where the model gave none.
    pub fn canonical(self, id: impl FnOnce() -> String) -> Value {
        let id = self.id.filter(|id| !id.is_empty()).unwrap_or_else(id);
        json!({"id": id, "function": {"name": self.name, "arguments": self.arguments}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_in_the_forms_that_models_write() {
        let expected =
            || Call { id: None, name: "f".into(), arguments: Map::from_iter([("a".to_owned(), json!(1))]) };
        for value in [
            json!({"name": "f", "arguments": {"a": 1}}),
            json!({"name": "f", "parameters": {"a": 1}}),
            json!({"name": "f", "arguments": "{\"a\": 1}"}),
            json!({"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}),
        ] {
            assert_eq!(Call::from_json(value), Ok(expected()));
        }
        for value in [json!([]), json!({"arguments": {}}), json!({"name": "f", "arguments": [1]}), json!("f")]
        {
            assert_eq!(Call::from_json(value), Err(Stop::Not));
        }
        let list = json!([{"name": "f", "id": "1"}, {"name": "g"}]);
        let ids: Vec<_> = Call::all_from_json(list).unwrap().into_iter().map(|call| call.id).collect();
        assert_eq!(ids, [Some("1".to_owned()), None]);
        assert_eq!(Call::all_from_json(json!([])), Err(Stop::Not));
    }
}
