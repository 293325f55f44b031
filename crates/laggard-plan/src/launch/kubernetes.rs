//! A manifest for Kubernetes: an Indexed Job for each group of hosts, with a selector of its class.

use std::fmt::Write;

use super::Job;
use super::placement::Segment;
use crate::file::label;

/// More groups make a manifest that nobody reads.
const MOST_GROUPS: usize = 64;
/// Of 63 letters that a host's name may have, what numbers of two and eight digits leave.
const MOST_LETTERS: usize = 51;

/// The manifest, where every host has consecutive ranks on all its devices.
///
/// Indexed Jobs give pods the names `JOB-INDEX` under a headless service.
/// Source: kubernetes.io/docs/concepts/workloads/controllers/job, "Completion mode".
pub(super) fn manifest(job: &Job<'_>) -> Result<String, String> {
    let Some(segments) = job.placement.segments(job.hosts) else {
        return Err("hosts are shared between parts of the order of ranks".to_owned());
    };
    if segments.len() > MOST_GROUPS {
        let groups = segments.len();
        return Err(format!(
            "its ranks are on {groups} groups of hosts, more than {MOST_GROUPS}"
        ));
    }
    let name = service(&job.planned.name)?;
    let mut text = job.heading(
        "Jobs for Kubernetes, one for each group of hosts; `kubectl apply -f kubernetes.yaml`.\n\
         # Change image and command, and nodeSelector where nodes have another label for their\n\
         # class.",
    );
    _ = write!(
        text,
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: None\n  \
         selector:\n    laggard-job: {name}\n"
    );
    for (at, segment) in segments.iter().enumerate() {
        text.push_str(&group(job, &name, (at, segment)));
    }
    Ok(text)
}

/// The job's name as one of a service: such begin with a letter. Its pods' names, with the numbers
/// of group and host behind it, are names of hosts.
/// Source: kubernetes.io/docs/concepts/overview/working-with-objects/names, "RFC 1035 Label Names".
fn service(job: &str) -> Result<String, String> {
    let mut name = label(job);
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        name.insert_str(0, "job-");
    }
    if name.len() > MOST_LETTERS {
        return Err(format!(
            "the job's name has more than {MOST_LETTERS} letters"
        ));
    }
    Ok(name)
}

fn group(job: &Job<'_>, name: &str, (at, segment): (usize, &Segment)) -> String {
    let class = label(&job.classes[segment.class].name);
    let Segment {
        first,
        hosts,
        ranks,
        ..
    } = segment;
    let agents = job.placement.places.len();
    format!(
        r#"---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}-{at}
spec:
  completionMode: Indexed
  completions: {hosts}
  parallelism: {hosts}
  backoffLimit: 0
  template:
    metadata:
      labels:
        laggard-job: {name}
    spec:
      subdomain: {name}
      restartPolicy: Never
      nodeSelector:
        accelerator-class: {class}
      containers:
        - name: trainer
          image: CHANGE-ME
          command: ["bash", "-c"]
          args:
            - >-
              exec torchrun --nnodes={agents} --node-rank=$(({first} + JOB_COMPLETION_INDEX))
              --nproc-per-node={ranks} --master-addr={name}-0-0.{name} --master-port=29500
              CHANGE-ME.py
          resources:
            limits:
              nvidia.com/gpu: {ranks}
"#
    )
}
