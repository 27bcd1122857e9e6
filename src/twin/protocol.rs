//! What AWS's protocols have in common: errors, query parameters, XML, paging, filters.

use std::collections::BTreeMap;
use std::fmt::Display;

use chrono::{DateTime, Utc};

/// An answer that is an error, as AWS words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl AwsError {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> AwsError {
        AwsError { status, code: code.to_owned(), message: message.into() }
    }

    /// The caller's mistake: HTTP 400.
    pub fn client(code: &str, message: impl Into<String>) -> AwsError {
        AwsError::new(400, code, message)
    }

    pub fn invalid(message: impl Into<String>) -> AwsError {
        AwsError::client("InvalidParameterValue", message)
    }

    pub fn missing(parameter: &str) -> AwsError {
        AwsError::client("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }
}

/// Flat query parameters, `Filter.1.Value.2=x`, with views into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    pub fn parse(body: &[u8]) -> Params {
        Params(form_urlencoded::parse(body).into_owned().collect())
    }

    pub fn from_map(map: BTreeMap<String, String>) -> Params {
        Params(map)
    }

    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub fn required(&self, name: &str) -> Result<&str, AwsError> {
        self.text(name).ok_or_else(|| AwsError::missing(name))
    }

    pub fn count(&self, name: &str) -> Result<Option<u32>, AwsError> {
        let wrong = |text: &str| AwsError::invalid(format!("Value ({text}) for parameter {name} is invalid. It must be a number, 0 or more."));
        self.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, AwsError> {
        let wrong = |text: &str| AwsError::invalid(format!("Value ({text}) for parameter {name} is invalid. Write a time such as 2026-01-31T12:00:00Z."));
        self.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// The values of `Name.1`, `Name.2`, …
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.indexes(name).into_iter().filter_map(|index| self.text(&format!("{name}.{index}"))).collect()
    }

    /// What lies under `Name.1.`, `Name.2.`, …
    pub fn children(&self, name: &str) -> Vec<Params> {
        self.indexes(name).into_iter().map(|index| self.under(&format!("{name}.{index}"))).filter(|child| !child.0.is_empty()).collect()
    }

    /// What lies under `Name.`
    pub fn under(&self, name: &str) -> Params {
        let prefix = format!("{name}.");
        Params(self.starting_with(&prefix).map(|(key, value)| (key[prefix.len()..].to_owned(), value.clone())).collect())
    }

    /// Everything but one parameter, in a form that is the same for the same parameters.
    pub fn fingerprint_without(&self, name: &str) -> String {
        use sha2::Digest;
        let mut digest = sha2::Sha256::new();
        for (key, value) in self.0.iter().filter(|(key, _)| *key != name) {
            digest.update(format!("{}:{key}{}:{value}", key.len(), value.len()));
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn indexes(&self, name: &str) -> Vec<u32> {
        let prefix = format!("{name}.");
        let mut indexes: Vec<u32> = self.starting_with(&prefix).filter_map(|(key, _)| key[prefix.len()..].split('.').next()?.parse().ok()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.0.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

/// Tags by key under `TagSpecification.N.Tag.M.{Key,Value}` for one resource type.
pub fn tags_for(params: &Params, resource_type: &str) -> BTreeMap<String, String> {
    let of_type = |child: &Params| child.text("ResourceType") == Some(resource_type);
    params.children("TagSpecification").iter().filter(|child| of_type(child)).flat_map(tags).collect()
}

/// `Tag.N.{Key,Value}`.
pub fn tags(params: &Params) -> Vec<(String, String)> {
    params.children("Tag").iter().filter_map(|tag| Some((tag.text("Key")?.to_owned(), tag.text("Value").unwrap_or_default().to_owned()))).collect()
}

/// Text of an XML answer.
#[derive(Default)]
pub struct Xml(String);

impl Xml {
    pub fn field(&mut self, name: &str, value: impl Display) {
        self.0 += &format!("<{name}>{}</{name}>", escaped(&value.to_string()));
    }

    pub fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Xml)) {
        self.0 += &format!("<{name}>");
        inside(self);
        self.0 += &format!("</{name}>");
    }

    /// `<name><item>…</item>…</name>`
    pub fn items<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Xml, T)) {
        self.node(name, |xml| items.into_iter().for_each(|item| xml.node("item", |xml| each(xml, item))));
    }

    pub fn texts<T: Display>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.node(name, |xml| items.into_iter().for_each(|item| xml.field("item", item)));
    }

    pub fn tag_set(&mut self, tags: &BTreeMap<String, String>) {
        self.items("tagSet", tags, |xml, (key, value)| {
            xml.field("key", key);
            xml.field("value", value);
        });
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `2026-01-31T12:00:00.000Z`, as EC2 writes times.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// The page that was asked for and the token of the next one.
pub fn page<T>(items: Vec<T>, token: Option<&str>, size: usize) -> Result<(Vec<T>, Option<String>), AwsError> {
    let begin = match token {
        None => 0,
        Some(token) => token.strip_prefix("page-").and_then(|at| at.parse().ok()).ok_or_else(|| AwsError::invalid(format!("The token '{token}' is invalid")))?,
    };
    let total = items.len();
    let page: Vec<T> = items.into_iter().skip(begin).take(size.max(1)).collect();
    let end = begin + page.len();
    Ok((page, (end < total).then(|| format!("page-{end}"))))
}

/// `Filter.N.Name` with its values; a value may hold `*` and `?`.
pub struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    pub fn of(params: &Params) -> Filters {
        let filter = |child: &Params| Some((child.text("Name")?.to_owned(), child.list("Value").into_iter().map(str::to_owned).collect()));
        Filters(params.children("Filter").iter().filter_map(filter).collect())
    }

    /// Whether all filters hold. `values_of` gives a resource's values for a filter's name; `None` means it knows no such filter.
    pub fn admit(&self, values_of: impl Fn(&str) -> Option<Vec<String>>) -> Result<bool, AwsError> {
        for (name, wanted) in &self.0 {
            let values = values_of(name).ok_or_else(|| AwsError::invalid(format!("The filter '{name}' is invalid or unknown to the twin")))?;
            if !values.iter().any(|value| wanted.iter().any(|pattern| is_like(pattern, value))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn keep<T>(&self, items: impl IntoIterator<Item = T>, values_of: impl Fn(&T, &str) -> Option<Vec<String>>) -> Result<Vec<T>, AwsError> {
        let mut kept = Vec::new();
        for item in items {
            if self.admit(|name| values_of(&item, name))? {
                kept.push(item);
            }
        }
        Ok(kept)
    }
}

/// The values of the filters that look at tags.
pub fn tag_filter(tags: &BTreeMap<String, String>, name: &str) -> Option<Vec<String>> {
    match name.strip_prefix("tag:") {
        Some(key) => Some(tags.get(key).cloned().into_iter().collect()),
        None => (name == "tag-key").then(|| tags.keys().cloned().collect()),
    }
}

fn is_like(pattern: &str, text: &str) -> bool {
    let mut characters = pattern.chars();
    match characters.next() {
        None => text.is_empty(),
        Some('*') => text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(characters.as_str(), &text[at..])),
        Some(wanted) => {
            let mut rest = text.chars();
            rest.next().is_some_and(|found| wanted == '?' || found == wanted) && is_like(characters.as_str(), rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_children_are_in_the_order_of_their_numbers() {
        let params = Params::parse(b"InstanceId.10=c&InstanceId.2=b&InstanceId.1=a&Filter.1.Name=tag:x&Filter.1.Value.1=1%202");
        assert_eq!(params.list("InstanceId"), ["a", "b", "c"]);
        assert_eq!(params.children("Filter")[0].list("Value"), ["1 2"]);
    }

    #[test]
    fn patterns_match_as_ec2_says() {
        assert!(is_like("g5.*", "g5.xlarge") && is_like("g?.xlarge", "g5.xlarge") && is_like("*", "") && is_like("*large", "g5.xlarge"));
        assert!(!is_like("g5.*", "g6.xlarge") && !is_like("?", ""));
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let (first, token) = page(vec![1, 2, 3], None, 2).unwrap();
        let (second, end) = page(vec![1, 2, 3], token.as_deref(), 2).unwrap();
        assert_eq!((first, second, end), (vec![1, 2], vec![3], None));
        assert!(page(vec![1], Some("x"), 2).is_err());
    }
}
