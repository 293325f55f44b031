//! What `laggard plan -o DIR` writes.

use super::launch;
use crate::args::PlanArgs;
use crate::{input, output};
use anyhow::{Context, Result};
use laggard_plan::PlanFile;
use std::path::Path;

/// Name of the plan itself.
pub(crate) const PLAN: &str = "plan.json";

/// Writes a plan into a folder, which is made if it is not there, and says what to type next.
pub(super) fn write(plan: &PlanFile, args: &PlanArgs, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        let hint = "hint: choose another place with `-o`";
        format!("cannot make the folder {}\n{hint}", folder.display())
    })?;
    let path = folder.join(PLAN);
    output::file(&plan.to_json()?, &path)?;
    launch::write(plan, &args.launch, &input::tables(&args.tables)?, folder)?;
    let path = path.display();
    output::talk(&format!("plan: {path}\nnext: laggard run --plan {path}"));
    Ok(())
}
