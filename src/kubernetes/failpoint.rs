//! Places at which a test may end the process, as a power cut would.
//!
//! `PURSER_FAILPOINT=after:AskCloud` ends it after the first such effect, `before:RecordAnswer:2` before the second one.
//! Nothing happens unless `PURSER_FAILPOINTS_ENABLED=1`, so that a stray variable cannot hurt a production cluster.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::effects::Effect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

#[derive(Debug)]
struct Failpoint {
    moment: Moment,
    effect: Effect,
    /// Which hit (from 1) ends the process.
    hit: u32,
    seen: AtomicU32,
}

static ARMED: OnceLock<Option<Failpoint>> = OnceLock::new();

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PURSER_FAILPOINT={text} is no failpoint; write before:EFFECT, after:EFFECT or after:EFFECT:N with one of {effects}")]
pub struct FailpointError {
    text: String,
    effects: String,
}

/// Reads the environment once, at the start of the process.
pub fn arm() -> Result<(), FailpointError> {
    let enabled = std::env::var("PURSER_FAILPOINTS_ENABLED").is_ok_and(|value| value == "1");
    let failpoint = match std::env::var("PURSER_FAILPOINT") {
        Ok(text) if enabled => {
            tracing::warn!(failpoint = %text, "a failpoint is armed: this process will end itself");
            Some(parse(&text)?)
        }
        _ => None,
    };
    ARMED.get_or_init(|| failpoint);
    Ok(())
}

pub fn before(effect: Effect) {
    pass(Moment::Before, effect);
}

pub fn after(effect: Effect) {
    pass(Moment::After, effect);
}

fn pass(moment: Moment, effect: Effect) {
    let Some(Some(armed)) = ARMED.get() else { return };
    if armed.moment == moment && armed.effect == effect && armed.seen.fetch_add(1, Ordering::SeqCst) + 1 == armed.hit {
        end_at_once();
    }
}

/// SIGKILL to ourselves: no destructor, no buffer, no graceful anything.
#[allow(unsafe_code)]
fn end_at_once() -> ! {
    // SAFETY: both calls take and return plain integers and touch no memory of ours.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

fn parse(text: &str) -> Result<Failpoint, FailpointError> {
    let error = || FailpointError { text: text.to_owned(), effects: Effect::ALL.map(|effect| effect.to_string()).join(", ") };
    let mut words = text.split(':');
    let moment = match words.next() {
        Some("before") => Moment::Before,
        Some("after") => Moment::After,
        _ => return Err(error()),
    };
    let effect = words.next().and_then(|name| Effect::ALL.into_iter().find(|effect| effect.to_string() == name)).ok_or_else(error)?;
    let hit = words.next().map_or(Ok(1), str::parse).map_err(|_| error())?;
    if hit == 0 || words.next().is_some() {
        return Err(error());
    }
    Ok(Failpoint { moment, effect, hit, seen: AtomicU32::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_names_moment_effect_and_hit() {
        let failpoint = parse("before:RecordAnswer:2").unwrap();
        assert_eq!((failpoint.moment, failpoint.effect, failpoint.hit), (Moment::Before, Effect::RecordAnswer, 2));
        assert_eq!(parse("after:AskCloud").unwrap().hit, 1);
    }

    #[test]
    fn what_is_no_failpoint_is_refused_with_the_names_that_exist() {
        for text in ["AskCloud", "after:Nothing", "after:AskCloud:0", "after:AskCloud:1:2", "during:AskCloud"] {
            assert!(parse(text).unwrap_err().to_string().contains("WriteClaim"), "{text}");
        }
    }
}
