//! Objects in S3: whether a checkpoint is there.

use aws_sdk_ec2::error::ProvideErrorMetadata;

use super::super::CloudError;
use super::failure::failed;

/// S3, seen from one region.
pub struct Storage {
    client: aws_sdk_s3::Client,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{uri:?} is not an S3 location; write s3://bucket/prefix")]
    Location { uri: String },
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl Storage {
    pub(super) fn new(client: aws_sdk_s3::Client) -> Storage {
        Storage { client }
    }

    /// Whether anything lies at or below `s3://bucket/prefix`. A bucket that is not there holds nothing.
    pub async fn holds(&self, uri: &str) -> Result<bool, StorageError> {
        let (bucket, prefix) = location(uri).ok_or_else(|| StorageError::Location { uri: uri.to_owned() })?;
        match self.client.list_objects_v2().bucket(bucket).prefix(prefix).max_keys(1).send().await {
            Ok(answer) => Ok(!answer.contents().is_empty()),
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(false),
            Err(error) => Err(failed(format!("look for a checkpoint at {uri}"), error).into()),
        }
    }

    /// Creates a bucket unless it is this account's already. For tests and the demo; production brings its own.
    pub async fn ensure_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        match self.client.create_bucket().bucket(bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(failed(format!("create bucket {bucket}"), error).into()),
        }
    }

    /// Writes a small object whole. For tests and the demo.
    pub async fn put(&self, uri: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let (bucket, key) = location(uri).filter(|(_, key)| !key.is_empty()).ok_or_else(|| StorageError::Location { uri: uri.to_owned() })?;
        self.client.put_object().bucket(bucket).key(key).body(bytes.into()).send().await.map_err(|error| failed(format!("write {uri}"), error))?;
        Ok(())
    }
}

fn location(uri: &str) -> Option<(&str, &str)> {
    let (bucket, prefix) = uri.strip_prefix("s3://")?.split_once('/').or_else(|| Some((uri.strip_prefix("s3://")?, "")))?;
    let is_name = (3..=63).contains(&bucket.len()) && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
    is_name.then_some((bucket, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_bucket_and_a_prefix() {
        assert_eq!(location("s3://models/bert/run-1"), Some(("models", "bert/run-1")));
        assert_eq!(location("s3://models"), Some(("models", "")));
        for uri in ["", "s3://", "s3:///x", "file:///x", "s3://UPPER/x", "https://models/x"] {
            assert_eq!(location(uri), None, "{uri}");
        }
    }
}
