//! Which job follows which, and that this never goes round in a circle.

use std::collections::BTreeMap;

use super::document::Document;
use crate::job::Name;
use crate::policy::{After, When};

/// What the jobs of the file say of each other.
#[derive(Default)]
pub(super) struct Links {
    /// From a job to those that it makes run.
    triggers: Graph,
    /// From a job to those without which it does not run.
    waits: Graph,
}

type Graph = BTreeMap<Name, Vec<Link>>;

struct Link {
    to: Name,
    /// What the job that it starts from does.
    how: &'static str,
    /// The key that says so.
    at: usize,
}

impl Links {
    pub(super) fn comes_after(&mut self, job: &Name, is_scheduled: bool, after: &After, at: usize) {
        for upstream in &after.jobs {
            if !is_scheduled {
                let link = Link { to: job.clone(), how: "succeeds", at };
                self.triggers.entry(upstream.clone()).or_default().push(link);
            }
            if after.when == When::All || after.jobs.len() == 1 {
                let link = Link { to: upstream.clone(), how: "waits", at };
                self.waits.entry(job.clone()).or_default().push(link);
            }
        }
    }

    pub(super) fn on_failure(&mut self, job: &Name, other: &Name, at: usize) {
        let link = Link { to: other.clone(), how: "fails", at };
        self.triggers.entry(job.clone()).or_default().push(link);
    }

    /// Notes the circles: jobs that make each other run for ever, and jobs that wait for each
    /// other for ever.
    pub(super) fn finish(&self, doc: &Document<'_>) {
        let problems = doc.error_count();
        for circle in circles(&self.triggers) {
            let steps: Vec<String> = circle
                .iter()
                .map(|(from, link)| format!("`{}` runs when `{from}` {}", link.to, link.how))
                .collect();
            let message = format!(
                "these jobs make each other run without end: {}; take one of these `after` or `on_failure` out",
                steps.join(", ")
            );
            doc.error(first(&circle), message);
        }
        if doc.error_count() > problems {
            return;
        }
        for circle in circles(&self.waits) {
            let steps: Vec<String> =
                circle.iter().map(|(from, link)| format!("`{from}` waits for `{}`", link.to)).collect();
            let message = format!(
                "these jobs wait for each other, so that none ever runs: {}; take one of these `after` out",
                steps.join(", ")
            );
            doc.error(first(&circle), message);
        }
    }
}

/// Where the first of its keys stands in the file.
fn first(circle: &[(&Name, &Link)]) -> usize {
    circle.iter().map(|(_, link)| link.at).min().unwrap_or(0)
}

/// One circle of those that share a job. Without recursion: a chain may be as long as the file
/// has jobs.
fn circles(graph: &Graph) -> Vec<Vec<(&Name, &Link)>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        /// On the path, at this place.
        Open(usize),
        Done,
    }
    let mut found = Vec::new();
    let mut seen: BTreeMap<&Name, Seen> = BTreeMap::new();
    for start in graph.keys() {
        if seen.contains_key(start) {
            continue;
        }
        // Each job of the path, with how many of its links have been followed.
        let mut path: Vec<(&Name, usize)> = vec![(start, 0)];
        seen.insert(start, Seen::Open(0));
        while let Some((job, followed)) = path.last_mut() {
            let job = *job;
            let Some(link) = graph.get(job).and_then(|links| links.get(*followed)) else {
                seen.insert(job, Seen::Done);
                path.pop();
                continue;
            };
            *followed += 1;
            match seen.get(&link.to) {
                None => {
                    seen.insert(&link.to, Seen::Open(path.len()));
                    path.push((&link.to, 0));
                }
                Some(Seen::Done) => {}
                Some(Seen::Open(from)) => {
                    let link_of =
                        |(job, followed): &(&_, usize)| graph.get(*job).map(|links| &links[followed - 1]);
                    let circle: Vec<_> =
                        path[*from..].iter().filter_map(|step| Some((step.0, link_of(step)?))).collect();
                    found.push(circle);
                    // What is left of it would be told once more by other words.
                    for (job, _) in path.drain(..) {
                        seen.insert(job, Seen::Done);
                    }
                }
            }
        }
    }
    found
}
