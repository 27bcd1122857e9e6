//! Checks what a pool says before any of it reaches the cloud: the words come from a custom resource, that is, from outside.
//!
//! Only shapes are checked here; whether a subnet exists, the cloud says. A queue is a *name*: a URL would let whoever may
//! write pools point Purser, with its credentials, at any host.

use super::PoolConfig;

/// EC2 takes 16 KiB of user data before base64.
const USER_DATA_BYTES_MAX: usize = 16 * 1024;
/// EC2 allows 50 tags a resource; Purser needs seven of its own.
const TAGS_MAX: usize = 40;
/// The largest gp3 volume, in GiB.
const VOLUME_GIB_MAX: u32 = 65_536;
/// Tag keys under these prefixes are not the user's: Purser finds its machines by them.
const RESERVED_TAG_PREFIXES: [&str; 2] = ["aws:", "purser.dev/"];

impl PoolConfig {
    /// Whether every field has the shape that AWS gives such a thing; the message names the field and what it should be.
    pub fn validate(&self) -> Result<(), String> {
        // A new field must not be forgotten here.
        let PoolConfig {
            pool,
            cluster_id,
            region,
            requirements: _,
            subnets,
            ami,
            instance_profile,
            security_groups,
            kms_key,
            volume_gib,
            user_data,
            interruption_queue,
            tags,
        } = self;
        check("pool", pool, is_tag_word(pool), "letters, digits, dots and dashes, 253 at most")?;
        check("cluster id", cluster_id, is_tag_word(cluster_id), "letters, digits, dots and dashes, 253 at most")?;
        check("region", region, is_region(region), "a region such as us-east-1")?;
        for (zone, subnet) in subnets {
            check("zone", zone, is_zone_of(zone, region), "a zone of the pool's region such as us-east-1a")?;
            check("subnet", subnet, is_resource_id(subnet, "subnet-"), "a subnet id such as subnet-0123456789abcdef0")?;
        }
        check("ami", ami, is_resource_id(ami, "ami-"), "an image id such as ami-0123456789abcdef0")?;
        if let Some(profile) = instance_profile {
            check("instance profile", profile, is_instance_profile(profile), "a name, or an ARN such as arn:aws:iam::123456789012:instance-profile/name")?;
        }
        for group in security_groups {
            check("security group", group, is_resource_id(group, "sg-"), "a security group id such as sg-0123456789abcdef0")?;
        }
        if let Some(key) = kms_key {
            check("KMS key", key, is_kms_key(key), "a key id, an alias such as alias/purser, or the ARN of either")?;
        }
        if !(1..=VOLUME_GIB_MAX).contains(volume_gib) {
            return Err(format!("volume size {volume_gib} GiB is not between 1 and {VOLUME_GIB_MAX}"));
        }
        if user_data.as_ref().is_some_and(|text| text.len() > USER_DATA_BYTES_MAX) {
            return Err(format!("user data is longer than the {USER_DATA_BYTES_MAX} bytes that EC2 takes"));
        }
        if let Some(queue) = interruption_queue {
            check("interruption queue", queue, is_queue_name(queue), "a queue name (not a URL): letters, digits, _ and -, 80 at most, with .fifo at the end for a FIFO queue")?;
        }
        check_tags(tags)
    }
}

fn check(field: &str, value: &str, holds: bool, expected: &str) -> Result<(), String> {
    // What is echoed is shortened: it ends in conditions and logs.
    let shown: String = value.chars().take(80).collect();
    if holds { Ok(()) } else { Err(format!("{field} {shown:?} is not {expected}")) }
}

fn check_tags(tags: &std::collections::BTreeMap<String, String>) -> Result<(), String> {
    if tags.len() > TAGS_MAX {
        return Err(format!("{} tags are more than the {TAGS_MAX} that a pool may set", tags.len()));
    }
    for (key, value) in tags {
        check("tag key", key, !key.is_empty() && key.chars().count() <= 128, "1 to 128 characters long")?;
        check("tag value", value, value.chars().count() <= 256, "256 characters at most")?;
        if RESERVED_TAG_PREFIXES.iter().any(|prefix| key.to_ascii_lowercase().starts_with(prefix)) {
            return Err(format!("tag key {key:?} is reserved; keys that start with aws: or purser.dev/ cannot be set by a pool"));
        }
    }
    Ok(())
}

/// Whether the text can be a queue's name: `[A-Za-z0-9_-]{1,80}` with an optional `.fifo`.
pub fn is_queue_name(text: &str) -> bool {
    let stem = text.strip_suffix(".fifo").unwrap_or(text);
    !stem.is_empty() && text.len() <= 80 && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Whether the text has the shape of a region's name: `us-east-1`, `us-gov-west-1`, `ap-southeast-2`.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    let is_word = |part: &&str| !part.is_empty() && part.len() <= 12 && part.bytes().all(|byte| byte.is_ascii_lowercase());
    first.len() == 2 && is_word(first) && !middle.is_empty() && middle.len() <= 3 && middle.iter().all(is_word) && matches!(last.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'9', b'0'..=b'9'])
}

/// Zones, local zones (`us-west-2-lax-1a`) and wavelength zones all begin with their region.
fn is_zone_of(zone: &str, region: &str) -> bool {
    let suffix = zone.strip_prefix(region).unwrap_or_default();
    !suffix.is_empty() && suffix.len() <= 24 && suffix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') && suffix.ends_with(|last: char| last.is_ascii_lowercase())
}

/// Eight hexadecimal digits (old) or seventeen (since 2016) after the prefix.
fn is_resource_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    (digits.len() == 8 || digits.len() == 17) && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_instance_profile(text: &str) -> bool {
    match resource_of_arn(text, "iam") {
        Some(resource) => resource.strip_prefix("instance-profile/").is_some_and(|path| path.split('/').all(is_iam_name)),
        None => is_iam_name(text),
    }
}

fn is_iam_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

fn is_kms_key(text: &str) -> bool {
    let resource = resource_of_arn(text, "kms").unwrap_or(text);
    let name = match (resource.strip_prefix("alias/"), resource.strip_prefix("key/")) {
        (Some(alias), _) => return !alias.is_empty() && alias.len() <= 250 && alias.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte)),
        (None, Some(key)) => key,
        (None, None) => resource,
    };
    let hex = name.strip_prefix("mrk-").unwrap_or(name);
    (hex.len() == 32 || hex.len() == 36) && hex.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The last part of `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, when the service is the one expected.
fn resource_of_arn<'a>(text: &'a str, service: &str) -> Option<&'a str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, named, _, account, resource] if partition.starts_with("aws") && *named == service && account.bytes().all(|byte| byte.is_ascii_digit()) => Some(resource),
        _ => None,
    }
}

/// What may be a tag's value and a filter's: EC2 reads `*` and `?` in filters as wildcards, so they may never get there.
fn is_tag_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::capacity::InstanceRequirements;

    fn config() -> PoolConfig {
        PoolConfig {
            pool: "gpu".into(),
            cluster_id: "1f0c6c8e-2f8a-4a57-9c5a-0f4f5f0e7a11".into(),
            region: "us-east-1".into(),
            requirements: InstanceRequirements::default(),
            subnets: BTreeMap::from([("us-east-1a".into(), "subnet-0123456789abcdef0".into())]),
            ami: "ami-0123456789abcdef0".into(),
            instance_profile: Some("purser-node".into()),
            security_groups: vec!["sg-01234567".into()],
            kms_key: Some("alias/purser".into()),
            volume_gib: 100,
            user_data: None,
            interruption_queue: Some("purser-events.fifo".into()),
            tags: BTreeMap::from([("team".into(), "vision".into())]),
        }
    }

    fn refused(change: impl FnOnce(&mut PoolConfig)) -> String {
        let mut changed = config();
        change(&mut changed);
        changed.validate().unwrap_err()
    }

    #[test]
    fn an_ordinary_pool_passes() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn a_queue_is_a_name_and_never_an_address() {
        for queue in ["https://evil.example/queue", "a/b", "", "a.b", ".fifo", "localhost:80", &"q".repeat(81)] {
            assert!(refused(|pool| pool.interruption_queue = Some(queue.into())).contains("interruption queue"), "{queue}");
        }
    }

    #[test]
    fn a_cluster_id_cannot_be_a_wildcard_that_finds_the_machines_of_others() {
        for id in ["*", "a?b", "", "a b"] {
            assert!(refused(|pool| pool.cluster_id = id.into()).contains("cluster id"), "{id}");
        }
    }

    #[test]
    fn a_pool_cannot_set_the_tags_by_which_machines_are_found() {
        for key in ["purser.dev/cluster", "Purser.dev/claim", "aws:autoscaling"] {
            assert!(refused(|pool| drop(pool.tags.insert(key.into(), "x".into()))).contains("reserved"), "{key}");
        }
    }

    #[test]
    fn each_identifier_has_its_shape() {
        assert!(refused(|pool| pool.ami = "latest".into()).starts_with("ami \"latest\""));
        assert!(refused(|pool| pool.ami = "ami-0123".into()).contains("image id"));
        assert!(refused(|pool| pool.security_groups = vec!["default".into()]).contains("security group"));
        assert!(refused(|pool| pool.region = "us-east-1.evil.example/".into()).contains("region"));
        assert!(refused(|pool| drop(pool.subnets.insert("eu-west-1a".into(), "subnet-01234567".into()))).contains("zone"));
        assert!(refused(|pool| drop(pool.subnets.insert("us-east-1b".into(), "vpc-01234567".into()))).contains("subnet"));
        assert!(refused(|pool| pool.instance_profile = Some("arn:aws:iam::1:role/x".into())).contains("instance profile"));
        assert!(refused(|pool| pool.kms_key = Some("my key".into())).contains("KMS key"));
        assert!(refused(|pool| pool.volume_gib = 0).contains("volume size"));
        assert!(refused(|pool| pool.user_data = Some("x".repeat(17_000))).contains("user data"));
    }

    #[test]
    fn keys_and_profiles_may_be_named_in_each_way_that_aws_allows() {
        for key in ["1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/a/b"] {
            assert!(is_kms_key(key), "{key}");
        }
        assert!(is_instance_profile("arn:aws:iam::111122223333:instance-profile/team/purser-node"));
        for region in ["us-east-1", "us-gov-west-1", "ap-southeast-5", "us-iso-east-1"] {
            assert!(is_region(region), "{region}");
        }
        assert!(is_zone_of("us-west-2-lax-1a", "us-west-2"));
    }
}
