//! llama-server's field `lora`: `[{"id","scale"}]`, where an adapter's id is its configured name.

use serde_json::Value;

use super::json::object;
use crate::error::Error;
use crate::generation::Adaptation;

object! {
    /// One entry, as it comes.
    pub(super) struct Lora {
        "id" => id: Value,
        "name" => name: String,
        "scale" => scale: f64,
    }
}

/// What a request asks for with `entries`; nothing said, nothing asked. As in llama-server what is not in the list is off, and so
/// is what has the scale 0. Without a scale an adapter has its configured one.
pub(super) fn adaptation(entries: Option<Vec<Lora>>) -> Result<Adaptation, Error> {
    let Some(entries) = entries else { return Ok(Adaptation::Default) };
    let mut wanted = Adaptation::Off;
    for entry in entries {
        let name = entry.name.or_else(|| Some(entry.id?.as_str()?.to_owned()));
        let name = name.ok_or_else(|| wrong("the id of an entry of lora must be the name of an adapter"))?;
        if entry.scale == Some(0.0) {
            continue;
        }
        if wanted != Adaptation::Off {
            return Err(wrong("lora can apply one adapter at a time"));
        }
        let scale = entry.scale.map(|scale| scale as f32);
        if scale.is_some_and(|scale| !scale.is_finite()) {
            return Err(wrong("lora has a scale that is out of range"));
        }
        wanted = Adaptation::Adapter { name, scale };
    }
    Ok(wanted)
}

fn wrong(message: &str) -> Error {
    Error::invalid_param("lora", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(lora: Value) -> Result<Adaptation, String> {
        let entries: Option<Vec<Lora>> = serde_json::from_value(lora).unwrap();
        adaptation(entries).map_err(|error| error.to_string())
    }

    fn adapter(name: &str, scale: Option<f32>) -> Result<Adaptation, String> {
        Ok(Adaptation::Adapter { name: name.to_owned(), scale })
    }

    #[test]
    fn what_is_listed_with_a_scale_is_applied_and_all_else_is_off() {
        assert_eq!(asked(json!(null)), Ok(Adaptation::Default));
        assert_eq!(asked(json!([])), Ok(Adaptation::Off));
        assert_eq!(asked(json!([{"id": "a", "scale": 0}])), Ok(Adaptation::Off));
        assert_eq!(asked(json!([{"name": "a"}])), adapter("a", None));
        assert_eq!(
            asked(json!([{"id": "a", "scale": 0}, {"id": "b", "scale": 0.5}])),
            adapter("b", Some(0.5))
        );
    }

    #[test]
    fn several_at_once_and_numbers_are_refused_in_words() {
        assert!(asked(json!([{"id": "a"}, {"id": "b"}])).unwrap_err().contains("one adapter at a time"));
        assert!(asked(json!([{"id": 0, "scale": 1}])).unwrap_err().contains("the name of an adapter"));
        assert!(asked(json!([{"id": "a", "scale": 1e300}])).unwrap_err().contains("out of range"));
    }
}
