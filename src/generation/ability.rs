//! What a model can do beyond text, told from the text of its chat template. Both sides of the seam ask: the proxy to refuse what
//! a model cannot do, the worker to know how to read its answers.

/// What encloses a model's thinking in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingMarks {
    /// Begins it.
    pub open: &'static str,
    /// Ends it.
    pub close: &'static str,
}

/// The marks in use: those of DeepSeek, Qwen and most others, and Mistral's.
const THINKING: [ThinkingMarks; 2] = [
    ThinkingMarks { open: "<think>", close: "</think>" },
    ThinkingMarks { open: "[THINK]", close: "[/THINK]" },
];

/// Whether the template shows the model the tools it may call: it mentions the variable they are in.
pub fn calls_tools(template: &str) -> bool {
    template.contains("tools")
}

/// How the model thinks, if it does: its template mentions both marks, as Ollama has it.
pub fn thinking(template: &str) -> Option<ThinkingMarks> {
    THINKING.into_iter().find(|marks| template.contains(marks.open) && template.contains(marks.close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_thinking_are_what_the_template_mentions() {
        assert!(calls_tools("{% if tools %}{{ tools|tojson }}{% endif %}"));
        assert!(!calls_tools("{% for m in messages %}{{ m.tool_calls }}{% endfor %}"));
        assert_eq!(thinking("{{ m.content.split('</think>')[-1] }}<think>\n"), Some(THINKING[0]));
        assert_eq!(thinking("[THINK]{{ m.thinking }}[/THINK]"), Some(THINKING[1]));
        assert_eq!(thinking("{{ m.content.split('</think>')[-1] }}"), None);
    }
}
