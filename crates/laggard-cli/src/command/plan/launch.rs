//! The launch files that `laggard plan -o DIR` writes beside the plan.

use crate::args::LaunchArgs;
use crate::failure::BadInput;
use crate::{input, output};
use anyhow::{Context, Result};
use laggard_backend::agreement::hash;
use laggard_plan::launch::{
    FILE_NAMES, Hosts, LaunchError, LaunchFile, device_classes, launch_files,
};
use laggard_plan::{PlanFile, PlannedOption};
use laggard_specs::Tables;
use std::path::{Component, Path};

/// The list of what was written, beside the folder of launch files: so that of an earlier plan
/// nothing is left, and nothing else is removed.
const WRITTEN: &str = "launch.files";
const HINT: &str = "hint: choose another place with `-o`";

/// Writes them into `launch/` of the plan's folder, a folder for each job, and says where; removes
/// those of an earlier plan.
pub(super) fn write(
    plan: &PlanFile,
    args: &LaunchArgs,
    tables: &Tables,
    folder: &Path,
) -> Result<()> {
    let option = plan.option(args.option)?;
    let classes = device_classes(plan);
    let hosts = match &args.hosts {
        Some(path) => Hosts::parse(&input::text(path)?, &classes)
            .map_err(|error| BadInput(format!("cannot use {}: {error}", path.display())))?,
        None => Hosts::placeholders(&classes),
    };
    let files = match launch_files(plan, option, &hosts, tables) {
        Ok(files) => files,
        // Nobody said that there are such hosts: the plan is good without.
        Err(error @ LaunchError::TooFewDevices { .. }) if hosts.are_placeholders => {
            output::talk(&format!("no launch files: {error}"));
            return replace(&[], folder);
        }
        Err(error) => return Err(BadInput(error.to_string()).into()),
    };
    replace(&files, folder)?;
    tell(
        option,
        &files,
        &folder.join("launch"),
        hosts.are_placeholders,
    );
    Ok(())
}

/// Writes files and removes those that are listed and are not among them, unless somebody changed
/// them.
fn replace(files: &[LaunchFile], folder: &Path) -> Result<()> {
    let (list, launch) = (folder.join(WRITTEN), folder.join("launch"));
    let old = match list.is_file() {
        true => input::text(&list)?,
        false => String::new(),
    };
    let is_new = |path: &str| files.iter().any(|file| file.path == path);
    let old = old.lines().filter_map(|line| line.split_once(' '));
    for (written, path) in old.filter(|(_, path)| !is_new(path)) {
        remove(written, &launch, Path::new(path))?;
    }
    // Listed before they are there: what is cut short is replaced too.
    let line = |file: &LaunchFile| format!("{} {}\n", of(file.text.as_bytes()), file.path);
    output::file(&files.iter().map(line).collect::<String>(), &list)?;
    files.iter().try_for_each(|file| put(file, &launch))
}

/// What tells a file that was written from what it became.
fn of(bytes: &[u8]) -> String {
    format!("{:016x}", hash(bytes.iter().copied()))
}

/// Removes a file as it was written, and the folder of its job where nothing else is in it.
fn remove(written: &str, launch: &Path, path: &Path) -> Result<()> {
    let is_within = path
        .components()
        .all(|it| matches!(it, Component::Normal(_)));
    let file = launch.join(path);
    let Some(now) = std::fs::read(&file).ok().filter(|_| is_within) else {
        return Ok(());
    };
    if of(&now) != written {
        output::talk(&format!(
            "kept, since it was changed: {} of an earlier plan",
            file.display()
        ));
        return Ok(());
    }
    std::fs::remove_file(&file)
        .with_context(|| format!("cannot remove {}\n{HINT}", file.display()))?;
    if let Some(job) = file.parent() {
        // Fails where something is left in it, which then stays.
        let _ = std::fs::remove_dir(job);
    }
    Ok(())
}

fn put(file: &LaunchFile, launch: &Path) -> Result<()> {
    let path = launch.join(&file.path);
    let within = path.parent().unwrap_or(launch);
    std::fs::create_dir_all(within)
        .with_context(|| format!("cannot make the folder {}\n{HINT}", within.display()))?;
    output::file(&file.text, &path)?;
    match file.path.ends_with(".sh") {
        true => make_executable(&path)
            .with_context(|| format!("cannot make {} executable\n{HINT}", path.display())),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn tell(option: &PlannedOption, files: &[LaunchFile], launch: &Path, are_placeholders: bool) {
    if let Some(first) = files.iter().find(|file| file.path.ends_with(FILE_NAMES[0])) {
        let readme = launch.join(&first.path);
        let jobs = match option.jobs.len() {
            1 => String::new(),
            jobs => format!(" of {jobs} jobs"),
        };
        let names = match are_placeholders {
            true => ", with placeholders for hosts (--hosts)",
            false => "",
        };
        output::talk(&format!(
            "launch files{jobs}{names}: see {}",
            readme.display()
        ));
    }
    // What is in no job's folder.
    for others in files.iter().filter(|file| !file.path.contains('/')) {
        let path = launch.join(&others.path);
        output::talk(&format!("hosts without a job: see {}", path.display()));
    }
}
