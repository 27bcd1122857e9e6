//! What is to be run: jobs, gangs, checkpoints, progress, deadlines.
//!
//! Pure. Knows nothing of prices or clouds.

pub mod job;
pub mod progress_metric;
pub mod slack;
pub mod status;

pub use progress_metric::ProgressMetric;
pub use job::{Checkpoint, Job, JobRef};
pub use slack::Outlook;
pub use status::{Attempt, AttemptOutcome, CheckpointMark, Considered, DecisionRecord, JobPhase, JobStatus, PodRecord, Progress};
