//! Names of the objects that Purser makes, short enough for what Kubernetes does with them.

use sha2::{Digest, Sha256};

/// A label's value has 63 characters at most.
const LABEL_MAX: usize = 63;
/// A pod of an Indexed Job is named `JOB-INDEX-xxxxx`, its host `JOB-INDEX`: 63 characters less an index of up to 4 digits
/// and 6 more characters.
const WORKLOAD_MAX: usize = 52;

/// A name as a label's value: itself where it fits, otherwise its beginning and a hash.
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_MAX { name.to_owned() } else { shortened(name, LABEL_MAX) }
}

/// The Job and Service of one attempt. Job names may begin with a digit or hold dots; a Service's may not. The UID's hash
/// keeps a job that was deleted and submitted again apart from its predecessor.
pub fn workload_name(job: &str, uid: &str, attempt: u32) -> String {
    let clean: String = job.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let clean = if clean.starts_with(|c: char| c.is_ascii_lowercase()) { clean } else { format!("job-{clean}") };
    let tail = format!("-a{attempt}-{}", hash(uid, 5));
    let room = WORKLOAD_MAX - tail.len();
    let head = if clean.len() <= room { clean } else { shortened(&clean, room) };
    format!("{}{tail}", head.trim_end_matches('-'))
}

fn shortened(name: &str, max: usize) -> String {
    let tail = hash(name, 8);
    let head: String = name.chars().filter(char::is_ascii).take(max - tail.len() - 1).collect();
    format!("{}-{tail}", head.trim_end_matches(['-', '.', '_']))
}

/// So many hex digits of SHA-256.
pub fn hash(text: &str, digits: usize) -> String {
    Sha256::digest(text.as_bytes()).iter().flat_map(|byte| [byte >> 4, byte & 15]).take(digits).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_workload_is_named_as_a_dns_label_of_52_characters_at_most(job in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", uid in "[0-9a-f-]{36}", attempt in 1u32..10_000) {
            let name = workload_name(&job, &uid, attempt);
            proptest::prop_assert!(name.len() <= WORKLOAD_MAX);
            proptest::prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
            proptest::prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        }

        #[test]
        fn a_label_value_fits(name in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?") {
            let value = label_value(&name);
            proptest::prop_assert!(value.len() <= LABEL_MAX && value.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn two_lives_of_one_name_do_not_share_a_workload() {
        assert_ne!(workload_name("bert", "uid-1", 1), workload_name("bert", "uid-2", 1));
        assert_ne!(workload_name("bert", "uid-1", 1), workload_name("bert", "uid-1", 2));
    }
}
