//! The checkpoint's own tokenizer behind an interface that only gives errors. Loader thread.
//! The `tokenizers` crate takes damaged files for mistakes of the program, and panics: that ends here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::Tokenizer;

use super::charsmap;
use crate::checkpoint::error::shortened;

/// Splits prompts into token ids.
pub(super) struct PromptTokenizer(Tokenizer);

impl PromptTokenizer {
    /// Parses the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        charsmap::check(text)?;
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(text))?;
        // Settings of whoever saved the file: one prompt needs no padding, and the reference truncates nothing.
        tokenizer.with_padding(None);
        guarded(|| tokenizer.with_truncation(None).map(|_| ()))?;
        let tokenizer = Self(tokenizer);
        // What it adds around every prompt may be missing from the file: better known now than at the first prompt.
        tokenizer.ids("")?;
        Ok(tokenizer)
    }

    /// Token ids of a prompt, with what the file adds around it.
    ///
    /// # Errors
    /// Why it cannot be split.
    pub fn ids(&self, prompt: &str) -> Result<Vec<u32>, String> {
        guarded(|| self.0.encode(prompt, true)).map(|encoding| encoding.get_ids().to_vec())
    }
}

/// Runs the crate's code. What it leaves behind when it panics is either dropped (a tokenizer half made) or a cache
/// that it does not read again while a lock on it is poisoned.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| shortened(&error.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no more is known");
            Err(format!("the tokenizer failed on it: {}", shortened(said)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_crate_panics_on_is_an_error() {
        let parse = |template: &str| {
            let model = r#"{"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["</s>", 0.0]]}"#;
            let tokens = r#"{"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}"#;
            let after = format!(
                r#"{{"type": "TemplateProcessing", "single": [{{"Sequence": {{"id": "A", "type_id": 0}}}},
                {{"SpecialToken": {{"id": "{template}", "type_id": 0}}}}], "pair": [], "special_tokens": {tokens}}}"#
            );
            let text = format!(r#"{{"version": "1.0", "post_processor": {after}, "model": {model}}}"#);
            PromptTokenizer::parse(text.as_bytes())
        };
        let tokenizer = parse("</s>").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((tokenizer.ids("aa"), tokenizer.ids("")), (Ok(vec![1, 1, 2]), Ok(vec![2])));
        let error = parse("</t>").err().unwrap_or_default();
        assert!(error.contains("the tokenizer failed on it"), "{error}");
    }
}
