//! Who comes first: higher priority, then the earlier deadline (none is last), then the longer wait, then the name.

use super::snapshot::JobView;

/// The jobs in the order in which capacity and budget are given out.
pub fn rank(jobs: &[JobView]) -> Vec<&JobView> {
    let mut ranked: Vec<&JobView> = jobs.iter().collect();
    ranked.sort_by_key(|view| {
        let job = &view.job;
        (
            std::cmp::Reverse(job.priority),
            job.deadline.is_none(),
            job.deadline,
            job.submitted_at,
            (&job.id.namespace, &job.id.name, &job.id.uid),
        )
    });
    ranked
}
