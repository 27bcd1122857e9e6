//! What an SDK error means for the caller: [`CloudError`] with its [`Retry`], or "unknown" where knowing is optional.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::super::{CloudError, Retry};

/// Codes by which AWS asks for patience (from the SDK's own list, and EC2's).
const THROTTLED: [&str; 9] = [
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestThrottled",
    "RequestThrottledException",
    "EC2ThrottledException",
    "SlowDown",
];

/// Codes that say "down, come back", whatever their HTTP status.
const DOWN: [&str; 5] = ["Unavailable", "ServiceUnavailable", "ServiceUnavailableException", "InternalFailure", "Server.Unavailable"];

const MESSAGE_MAX: usize = 500;

pub(super) fn failed<E, R>(doing: impl Into<String>, error: SdkError<E, R>) -> CloudError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    CloudError { doing: doing.into(), message: message_of(&error), retry: retry_after(&error), source: Some(Box::new(error)) }
}

/// Knowledge that Purser can do without, or why it must: shown as a warning.
pub(super) type Optional<T> = Result<T, String>;

pub(super) fn optional<T, E, R>(what: &str, result: Result<T, SdkError<E, R>>) -> Optional<T>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    result.map_err(|error| {
        let message = message_of(&error);
        tracing::debug!(what, error = %DisplayErrorContext(&error), "an optional call failed");
        format!("{what} are not known: {message}")
    })
}

/// `CODE: text` as the cloud answered, or the chain of causes when it did not get that far. It ends in conditions and logs, so
/// it is short, and never the raw answer; that is in [`CloudError::source`].
pub(super) fn message_of<E, R>(error: &SdkError<E, R>) -> String
where
    E: Error + ProvideErrorMetadata + 'static,
    R: Debug + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(text)) => format!("{code}: {text}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => chain(error),
    }
}

fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    let mut words: Vec<String> = causes.map(ToString::to_string).collect();
    // Wrappers repeat what they wrap.
    words.dedup();
    words.join(": ").chars().take(MESSAGE_MAX).collect()
}

fn retry_after<E, R>(error: &SdkError<E, R>) -> Retry
where
    E: ProvideErrorMetadata,
{
    match error {
        // Nothing was sent: no credentials, no region, a field that cannot be written.
        SdkError::ConstructionFailure(_) => Retry::Never,
        // It may have been done all the same.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Retry::Same,
        SdkError::ServiceError(answer) => retry_after_code(answer.err().code().unwrap_or_default()),
        // The SDK may add kinds of errors; not knowing whether it was done is the safe reading.
        _ => Retry::Same,
    }
}

fn retry_after_code(code: &str) -> Retry {
    if THROTTLED.contains(&code) || DOWN.contains(&code) {
        return Retry::AfterBackoff;
    }
    match code {
        // An HTTP 500 whose effect nobody knows, or no code at all (a proxy's answer).
        "InternalError" | "InternalServerError" | "" => Retry::Same,
        _ => Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_repetition_and_a_person_are_told_apart() {
        assert_eq!(retry_after_code("RequestLimitExceeded"), Retry::AfterBackoff);
        assert_eq!(retry_after_code("Unavailable"), Retry::AfterBackoff);
        assert_eq!(retry_after_code("InternalError"), Retry::Same);
        assert_eq!(retry_after_code(""), Retry::Same);
        assert_eq!(retry_after_code("UnauthorizedOperation"), Retry::Never);
        assert_eq!(retry_after_code("AuthFailure"), Retry::Never);
    }
}
