//! An error with all its causes on one line, each once: many libraries repeat their source in their own text.

use std::error::Error;

pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut said = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !said.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
            said = next;
        }
        cause = error.source();
    }
    text
}
