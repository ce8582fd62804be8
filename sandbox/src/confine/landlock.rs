//! Landlock: restricts the files that a session may access, independently of the mounts.

use std::path::Path;

use landlock::ABI;
use landlock::Access;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::CompatLevel;
use landlock::Compatible;
use landlock::LandlockStatus;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreatedAttr;
use landlock::RulesetStatus;
use landlock::Scope;
use landlock::path_beneath_rules;

use super::ConfineError;
use super::Context;

/// The newest ABI version whose rights are requested; an older kernel enforces those it knows.
const ABI_WANTED: ABI = ABI::V6;

/// The first ABI version that confines signals and abstract Unix sockets to the session.
pub const ABI_WITH_SCOPES: i32 = 6;

/// Restricts this process and its children: paths in `read` may be read and executed, those in
/// `write` read and written, `devices` (single files) read and written. Missing paths are skipped.
/// Returns the ABI version of this kernel.
pub fn apply(read: &[&Path], write: &[&str], devices: &[&str]) -> Result<i32, ConfineError> {
    let writing = (AccessFs::from_read(ABI_WANTED) | AccessFs::from_write(ABI_WANTED))
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::IoctlDev);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI_WANTED)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI_WANTED)))
        .and_then(Ruleset::create)
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(read, AccessFs::from_read(ABI_WANTED)))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules(write, writing)))
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(
                devices,
                AccessFs::ReadFile | AccessFs::WriteFile,
            ))
        })
        .and_then(landlock::RulesetCreated::restrict_self)
        .context("restricting the file system by Landlock")?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. }
            if status.ruleset != RulesetStatus::NotEnforced =>
        {
            Ok(effective_abi as i32)
        }
        _ => Err(ConfineError::new(
            "restricting the file system by Landlock",
            "this kernel has no Landlock, or it is disabled",
        )),
    }
}
