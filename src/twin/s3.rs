//! A small object store, path style: what checkpoints of training programs need.
//!
//! Objects lie in memory and, where the twin has a state folder, also on disk: one file each, a line of JSON (name, type,
//! time) and then the bytes. Every answer says AES256, as S3 does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::OpenError;
use super::protocol::{AwsError, Params, Xml};

/// Status, headers, body.
pub struct S3Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    key: String,
    content_type: String,
    modified: DateTime<Utc>,
}

#[derive(Clone, Debug)]
struct Object {
    label: Label,
    bytes: Bytes,
}

impl Object {
    fn etag(&self) -> String {
        format!("\"{}\"", &sha256(&self.bytes)[..32])
    }
}

type Bucket = BTreeMap<String, Object>;

pub struct Objects {
    folder: Option<PathBuf>,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    buckets: BTreeMap<String, Bucket>,
    /// Parts of uploads that are under way, by upload id.
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    uploads_begun: u64,
}

impl Objects {
    pub fn open(state: Option<&Path>) -> Result<Objects, OpenError> {
        let folder = state.map(|state| state.join("s3"));
        let mut store = Store::default();
        if let Some(folder) = &folder {
            store.buckets = load(folder).map_err(|source| OpenError::Read { path: folder.clone(), source })?;
        }
        Ok(Objects { folder, store: Mutex::new(store) })
    }

    pub fn answer(&self, parts: &Parts, body: Bytes) -> Result<S3Answer, AwsError> {
        let path = percent_decoded(parts.uri.path().trim_start_matches('/'));
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let query = Params::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let asks = |name: &str| parts.uri.query().is_some_and(|text| text.split('&').any(|part| part.split('=').next() == Some(name)));
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match (parts.method.clone(), bucket, key) {
            (Method::GET, "", _) => Ok(store.list_buckets()),
            (Method::PUT, bucket, "") => {
                store.buckets.entry(bucket.to_owned()).or_default();
                self.keep_bucket(bucket)?;
                Ok(answer(200, Bytes::new()))
            }
            (Method::HEAD, bucket, "") => store.bucket(bucket).map(|_| answer(200, Bytes::new())),
            (Method::GET, bucket, "") if asks("location") => store.bucket(bucket).map(|_| xml_answer("LocationConstraint", Xml::default())),
            (Method::GET, bucket, "") => store.list(bucket, &query),
            (Method::POST, bucket, "") if asks("delete") => self.delete_many(&mut store, bucket, &body),
            (Method::POST, bucket, key) if asks("uploads") => store.begin_upload(bucket, key),
            (Method::POST, bucket, key) if asks("uploadId") => {
                let bytes = store.end_upload(query.required("uploadId")?)?;
                let put = self.put(&mut store, bucket, key, &parts.headers, bytes)?;
                let etag = put.headers.iter().find(|(name, _)| *name == "etag").map(|(_, etag)| etag.clone()).unwrap_or_default();
                let mut xml = Xml::default();
                xml.field("Bucket", bucket);
                xml.field("Key", key);
                xml.field("ETag", etag);
                Ok(xml_answer("CompleteMultipartUploadResult", xml))
            }
            (Method::PUT, _, _) if asks("uploadId") => store.add_part(query.required("uploadId")?, query.count("partNumber")?.unwrap_or(0), unchunked(&parts.headers, body)?),
            (Method::DELETE, _, _) if asks("uploadId") => {
                store.uploads.remove(query.required("uploadId")?);
                Ok(answer(204, Bytes::new()))
            }
            (Method::PUT, bucket, key) => {
                let bytes = unchunked(&parts.headers, body)?;
                self.put(&mut store, bucket, key, &parts.headers, bytes)
            }
            (Method::GET | Method::HEAD, bucket, key) => store.get(bucket, key, &parts.headers, parts.method == Method::HEAD),
            (Method::DELETE, bucket, key) => self.delete(&mut store, bucket, key).map(|()| answer(204, Bytes::new())),
            (method, _, _) => Err(AwsError::client("NotImplemented", format!("The twin does not know {method} {}", parts.uri))),
        }
    }

    fn put(&self, store: &mut Store, bucket: &str, key: &str, headers: &HeaderMap, bytes: Bytes) -> Result<S3Answer, AwsError> {
        let exists = store.bucket(bucket)?.contains_key(key);
        if exists && header(headers, "if-none-match") == Some("*") {
            return Err(AwsError::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"));
        }
        let content_type = header(headers, "content-type").unwrap_or("application/octet-stream").to_owned();
        let object = Object { label: Label { key: key.to_owned(), content_type, modified: Utc::now() }, bytes };
        self.keep(bucket, &object)?;
        let mut put = answer(200, Bytes::new());
        put.headers.push(("etag", object.etag()));
        store.buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), object);
        Ok(put)
    }

    fn delete(&self, store: &mut Store, bucket: &str, key: &str) -> Result<(), AwsError> {
        store.bucket(bucket)?;
        if store.buckets.get_mut(bucket).and_then(|objects| objects.remove(key)).is_some()
            && let Some(folder) = &self.folder
        {
            std::fs::remove_file(file_of(folder, bucket, key)).map_err(disk)?;
        }
        Ok(())
    }

    fn delete_many(&self, store: &mut Store, bucket: &str, body: &[u8]) -> Result<S3Answer, AwsError> {
        let text = String::from_utf8_lossy(body);
        let keys: Vec<String> = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(unescaped).collect();
        keys.iter().try_for_each(|key| self.delete(store, bucket, key))?;
        let mut xml = Xml::default();
        keys.iter().for_each(|key| xml.node("Deleted", |xml| xml.field("Key", key)));
        Ok(xml_answer("DeleteResult", xml))
    }

    fn keep_bucket(&self, bucket: &str) -> Result<(), AwsError> {
        self.folder.as_ref().map_or(Ok(()), |folder| std::fs::create_dir_all(folder.join(hex(bucket.as_bytes()))).map_err(disk))
    }

    fn keep(&self, bucket: &str, object: &Object) -> Result<(), AwsError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut text = serde_json::to_vec(&object.label).map_err(|error| AwsError::new(500, "InternalError", error.to_string()))?;
        text.push(b'\n');
        text.extend_from_slice(&object.bytes);
        let (file, part) = (file_of(folder, bucket, &object.label.key), folder.join(hex(bucket.as_bytes())).join("writing"));
        // Whole or not at all: a crash leaves the old object.
        std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, file)).map_err(disk)
    }
}

impl Store {
    fn bucket(&self, name: &str) -> Result<&Bucket, AwsError> {
        self.buckets.get(name).ok_or_else(|| AwsError::new(404, "NoSuchBucket", format!("The specified bucket {name:?} does not exist")))
    }

    fn list_buckets(&self) -> S3Answer {
        let mut xml = Xml::default();
        xml.node("Buckets", |xml| self.buckets.keys().for_each(|name| xml.node("Bucket", |xml| xml.field("Name", name))));
        xml_answer("ListAllMyBucketsResult", xml)
    }

    fn get(&self, bucket: &str, key: &str, headers: &HeaderMap, is_head: bool) -> Result<S3Answer, AwsError> {
        let object = self.bucket(bucket)?.get(key).ok_or_else(|| AwsError::new(404, "NoSuchKey", "The specified key does not exist."))?;
        let whole = object.bytes.len();
        let range = header(headers, "range").and_then(|text| range_of(text, whole));
        let (status, bytes) = match &range {
            Some(range) => (206, object.bytes.slice(range.clone())),
            None => (200, object.bytes.clone()),
        };
        let mut got = answer(status, if is_head { Bytes::new() } else { bytes.clone() });
        got.headers.push(("etag", object.etag()));
        got.headers.push(("content-type", object.label.content_type.clone()));
        got.headers.push(("last-modified", object.label.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        got.headers.push(("content-length", bytes.len().to_string()));
        if let Some(range) = range {
            got.headers.push(("content-range", format!("bytes {}-{}/{whole}", range.start, range.end.saturating_sub(1))));
        }
        Ok(got)
    }

    fn list(&self, bucket: &str, query: &Params) -> Result<S3Answer, AwsError> {
        let (prefix, delimiter) = (query.text("prefix").unwrap_or(""), query.text("delimiter"));
        let after = query.text("continuation-token").or_else(|| query.text("start-after")).or_else(|| query.text("marker")).unwrap_or("");
        let most = query.count("max-keys")?.unwrap_or(1_000).min(1_000) as usize;
        let mut entries: Vec<(String, Option<&Object>)> = Vec::new();
        for (key, object) in self.bucket(bucket)?.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let cut = delimiter.and_then(|delimiter| Some(prefix.len() + key[prefix.len()..].find(delimiter)? + delimiter.len()));
            let (name, object) = cut.map_or((key.clone(), Some(object)), |end| (key[..end].to_owned(), None));
            if name.as_str() > after && entries.last().is_none_or(|(last, _)| *last != name) {
                entries.push((name, object));
            }
        }
        let is_truncated = entries.len() > most;
        entries.truncate(most);
        let mut xml = Xml::default();
        xml.field("Name", bucket);
        xml.field("Prefix", prefix);
        xml.optional("Delimiter", delimiter);
        xml.field("KeyCount", entries.len());
        xml.field("MaxKeys", most);
        xml.field("IsTruncated", is_truncated);
        if let Some((last, _)) = entries.last().filter(|_| is_truncated) {
            xml.field("NextContinuationToken", last);
        }
        for (name, object) in &entries {
            match object {
                Some(object) => xml.node("Contents", |xml| {
                    xml.field("Key", name);
                    xml.field("LastModified", super::protocol::timestamp(object.label.modified));
                    xml.field("ETag", object.etag());
                    xml.field("Size", object.bytes.len());
                    xml.field("StorageClass", "STANDARD");
                }),
                None => xml.node("CommonPrefixes", |xml| xml.field("Prefix", name)),
            }
        }
        Ok(xml_answer("ListBucketResult", xml))
    }

    fn begin_upload(&mut self, bucket: &str, key: &str) -> Result<S3Answer, AwsError> {
        self.bucket(bucket)?;
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(id.clone(), BTreeMap::new());
        let mut xml = Xml::default();
        xml.field("Bucket", bucket);
        xml.field("Key", key);
        xml.field("UploadId", id);
        Ok(xml_answer("InitiateMultipartUploadResult", xml))
    }

    fn add_part(&mut self, id: &str, number: u32, bytes: Bytes) -> Result<S3Answer, AwsError> {
        let mut added = answer(200, Bytes::new());
        added.headers.push(("etag", format!("\"{}\"", &sha256(&bytes)[..32])));
        self.uploads.get_mut(id).ok_or_else(no_such_upload)?.insert(number, bytes);
        Ok(added)
    }

    fn end_upload(&mut self, id: &str) -> Result<Bytes, AwsError> {
        let parts = self.uploads.remove(id).ok_or_else(no_such_upload)?;
        Ok(parts.into_values().flatten().collect::<Vec<u8>>().into())
    }
}

fn no_such_upload() -> AwsError {
    AwsError::new(404, "NoSuchUpload", "The specified multipart upload does not exist.")
}

fn answer(status: u16, body: Bytes) -> S3Answer {
    S3Answer { status, headers: vec![("x-amz-server-side-encryption", "AES256".to_owned())], body }
}

fn xml_answer(root: &str, inside: Xml) -> S3Answer {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</{root}>", inside.into_text());
    let mut xml = answer(200, text.into());
    xml.headers.push(("content-type", "application/xml".to_owned()));
    xml
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// SDKs send bodies in signed or trailed chunks: `SIZE;…\r\nDATA\r\n…0;…\r\n`.
fn unchunked(headers: &HeaderMap, body: Bytes) -> Result<Bytes, AwsError> {
    let is_chunked = header(headers, "x-amz-content-sha256").is_some_and(|text| text.starts_with("STREAMING-"))
        || header(headers, "content-encoding").is_some_and(|text| text.contains("aws-chunked"));
    if !is_chunked {
        return Ok(body);
    }
    let broken = || AwsError::client("IncompleteBody", "The body is not in aws-chunked form");
    let (mut rest, mut whole) = (&body[..], Vec::with_capacity(body.len()));
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or_else(broken)?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next()).and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(broken)?;
        if size == 0 {
            return Ok(whole.into());
        }
        let data = rest.get(end + 2..end + 2 + size).ok_or_else(broken)?;
        whole.extend_from_slice(data);
        rest = rest.get(end + 4 + size..).ok_or_else(broken)?;
    }
}

/// `bytes=A-B`, `bytes=A-` and `bytes=-N`.
fn range_of(text: &str, whole: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<usize>().ok(), last.parse::<usize>().ok()) {
        (Some(first), Some(last)) => first..whole.min(last.saturating_add(1)),
        (Some(first), None) => first..whole,
        (None, Some(count)) => whole.saturating_sub(count)..whole,
        (None, None) => return None,
    };
    (range.start < range.end).then_some(range)
}

fn load(folder: &Path) -> std::io::Result<BTreeMap<String, Bucket>> {
    let mut buckets = BTreeMap::new();
    std::fs::create_dir_all(folder)?;
    for directory in std::fs::read_dir(folder)? {
        let directory = directory?;
        let Some(name) = unhex(&directory.file_name().to_string_lossy()) else { continue };
        let mut bucket = Bucket::new();
        for file in std::fs::read_dir(directory.path())? {
            let text = Bytes::from(std::fs::read(file?.path())?);
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else { continue };
            if let Ok(label) = serde_json::from_slice::<Label>(&text[..end]) {
                bucket.insert(label.key.clone(), Object { label, bytes: text.slice(end + 1..) });
            }
        }
        buckets.insert(name, bucket);
    }
    Ok(buckets)
}

/// Keys may be longer than file names: a file is named by its key's hash.
fn file_of(folder: &Path, bucket: &str, key: &str) -> PathBuf {
    folder.join(hex(bucket.as_bytes())).join(sha256(key.as_bytes()))
}

fn disk(error: std::io::Error) -> AwsError {
    AwsError::new(500, "InternalError", format!("The twin could not write an object: {error}"))
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    String::from_utf8(bytes?).ok()
}

fn percent_decoded(text: &str) -> String {
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.as_bytes().get(at) {
        let escape = text.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(escape.unwrap_or(*byte));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_bodies_are_put_together() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER".parse().unwrap());
        let body = Bytes::from_static(b"5;chunk-signature=ab\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n");
        assert_eq!(unchunked(&headers, body).unwrap(), "hello world");
        assert!(unchunked(&headers, Bytes::from_static(b"9\r\nhello")).is_err());
    }

    #[test]
    fn keys_are_decoded_and_ranges_are_cut() {
        assert_eq!(percent_decoded("a%20b/%C3%A9%"), "a b/é%");
        assert_eq!(range_of("bytes=2-4", 10), Some(2..5));
        assert_eq!(range_of("bytes=-3", 10), Some(7..10));
        assert_eq!(range_of("bytes=12-", 10), None);
    }
}
