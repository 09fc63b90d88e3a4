//! What a generation asks last, apart from everything said before it.

use super::{Generation, Input, Role};

impl Generation {
    /// The text that the user ends with. `None`: it ends with something else, or shows something besides.
    pub fn question(&self) -> Option<&str> {
        let (text, images) = match &self.input {
            Input::Chat { messages, .. } => {
                let last = messages.last().filter(|message| message.role == Role::User)?;
                (&last.content, &last.images)
            }
            Input::Prompt { prompt, images, .. } => (prompt, images),
            Input::Raw { .. } | Input::Infill { .. } => return None,
        };
        (images.is_empty() && self.resume.is_none()).then_some(text)
    }

    /// The same generation, asking `text`; unchanged where [`Generation::question`] is `None`.
    pub fn asking(&self, text: &str) -> Self {
        let mut other = self.clone();
        if self.question().is_some() {
            match &mut other.input {
                Input::Chat { messages, .. } => {
                    messages.iter_mut().rev().take(1).for_each(|last| last.content = text.to_owned());
                }
                Input::Prompt { prompt, .. } => *prompt = text.to_owned(),
                Input::Raw { .. } | Input::Infill { .. } => {}
            }
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn generation(input: Value) -> Generation {
        serde_json::from_value(json!({ "model": "m", "input": input })).unwrap()
    }

    #[test]
    fn only_the_last_text_of_a_user_is_a_question() {
        let chat = |messages: Value| generation(json!({ "kind": "chat", "messages": messages }));
        let said = |role: &str| json!({ "role": role, "content": role });
        assert_eq!(chat(json!([said("system"), said("user")])).question(), Some("user"));
        assert_eq!(chat(json!([said("user"), said("assistant")])).question(), None);
        assert_eq!(chat(json!([said("user"), said("tool")])).question(), None);
        assert_eq!(chat(json!([])).question(), None);
        let picture = json!({ "role": "user", "content": "x", "images": [{ "data": "AA==" }] });
        assert_eq!(chat(json!([picture])).question(), None);
        assert_eq!(generation(json!({ "kind": "prompt", "prompt": "p" })).question(), Some("p"));
        assert_eq!(generation(json!({ "kind": "raw", "prompt": "p" })).question(), None);
    }

    #[test]
    fn another_question_changes_nothing_else() {
        let input = json!({ "kind": "chat", "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" },
            { "role": "user", "content": "c" }] });
        let first = generation(input);
        let other = first.asking("d");
        assert_eq!(other.question(), Some("d"));
        assert_ne!(other, first);
        assert_eq!(other.asking("c"), first);
        let raw = generation(json!({ "kind": "raw", "prompt": "p" }));
        assert_eq!(raw.asking("d"), raw);
    }
}
