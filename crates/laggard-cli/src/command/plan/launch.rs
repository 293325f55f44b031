//! The launch files that `laggard plan -o DIR` writes beside the plan.

use crate::args::LaunchArgs;
use crate::failure::BadInput;
use crate::{input, output};
use anyhow::{Context, Result};
use laggard_plan::launch::{
    FILE_NAMES, Hosts, LaunchError, LaunchFile, device_classes, launch_files,
};
use laggard_plan::{PlanFile, PlannedOption};
use laggard_specs::Tables;
use std::path::Path;

/// Writes them into `launch/` of the plan's folder, a folder for each job, and says where.
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
            return Ok(());
        }
        Err(error) => return Err(BadInput(error.to_string()).into()),
    };
    let launch = folder.join("launch");
    files.iter().try_for_each(|file| put(file, &launch))?;
    tell(option, &files, &launch, hosts.are_placeholders);
    Ok(())
}

/// Writes a file and removes those that an earlier plan's job of this name had and this has not.
fn put(file: &LaunchFile, launch: &Path) -> Result<()> {
    let path = launch.join(&file.path);
    let within = path.parent().unwrap_or(launch);
    let hint = "hint: choose another place with `-o`";
    if file.path.ends_with(FILE_NAMES[0]) {
        std::fs::create_dir_all(within)
            .with_context(|| format!("cannot make the folder {}\n{hint}", within.display()))?;
        for old in FILE_NAMES.map(|name| within.join(name)) {
            if old.is_file() {
                std::fs::remove_file(&old)
                    .with_context(|| format!("cannot replace {}\n{hint}", old.display()))?;
            }
        }
    }
    output::file(&file.text, &path)?;
    match file.path.ends_with(".sh") {
        true => make_executable(&path)
            .with_context(|| format!("cannot make {} executable\n{hint}", path.display())),
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
    let Some(first) = files.iter().find(|file| file.path.ends_with(FILE_NAMES[0])) else {
        return;
    };
    let (jobs, readme) = (option.jobs.len(), launch.join(&first.path));
    let names = match are_placeholders {
        true => ", with placeholders for hosts (--hosts)",
        false => "",
    };
    let jobs = if jobs == 1 {
        String::new()
    } else {
        format!(" of {jobs} jobs")
    };
    output::talk(&format!(
        "launch files{jobs}{names}: see {}",
        readme.display()
    ));
}
