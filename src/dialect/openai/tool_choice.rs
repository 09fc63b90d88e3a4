//! `tool_choice`: whether the model shall call tools, and which.

use serde_json::Value;

use crate::error::Error;
use crate::generation::ToolChoice;

/// What `choice` means, and the tools that are left to choose from: none where it forbids calls.
pub(super) fn parse(choice: Option<Value>, tools: Vec<Value>) -> Result<(ToolChoice, Vec<Value>), Error> {
    let choice = match choice {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok((ToolChoice::Auto, Vec::new())),
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                return Err(wrong(format!(
                    "invalid tool_choice {other:?}: must be none, auto, required or a function"
                )));
            }
        },
        Some(choice) => {
            let name = choice.pointer("/function/name").and_then(Value::as_str);
            let name =
                name.ok_or_else(|| wrong("tool_choice must be a word or name a function".to_owned()))?;
            if !tools.iter().any(|tool| name_of(tool) == Some(name)) {
                return Err(wrong(format!(
                    "tool_choice names the function {name:?}, which is not among the tools"
                )));
            }
            ToolChoice::Function(name.to_owned())
        }
    };
    if choice == ToolChoice::Required && tools.is_empty() {
        return Err(wrong("tool_choice is required, but there are no tools".to_owned()));
    }
    Ok((choice, tools))
}

fn name_of(tool: &Value) -> Option<&str> {
    tool.pointer("/function/name")?.as_str()
}

fn wrong(message: String) -> Error {
    Error::invalid_param("tool_choice", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(choice: Value) -> Result<(ToolChoice, usize), String> {
        let tools = vec![json!({"type": "function", "function": {"name": "f"}})];
        let parsed = parse((!choice.is_null()).then_some(choice), tools);
        parsed.map(|(choice, tools)| (choice, tools.len())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_choice_is_a_word_or_a_function() {
        assert_eq!(parsed(json!(null)), Ok((ToolChoice::Auto, 1)));
        assert_eq!(parsed(json!("auto")), Ok((ToolChoice::Auto, 1)));
        assert_eq!(parsed(json!("none")), Ok((ToolChoice::Auto, 0)));
        assert_eq!(parsed(json!("required")), Ok((ToolChoice::Required, 1)));
        let function = |name: &str| parsed(json!({"type": "function", "function": {"name": name}}));
        assert_eq!(function("f"), Ok((ToolChoice::Function("f".into()), 1)));
        assert!(function("g").unwrap_err().contains("\"g\", which is not among the tools"));
        assert!(parsed(json!("any")).unwrap_err().contains("must be none, auto, required or a function"));
        assert!(parsed(json!({"type": "function"})).is_err());
        assert!(parse(Some(json!("required")), Vec::new()).is_err());
    }
}
