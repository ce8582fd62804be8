//! Landlock: which files may be read and written, whatever else goes wrong.

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

use super::Failure;
use super::Trying;

/// The newest version whose rights are asked for; an older kernel enforces what it knows.
const ABI_WANTED: ABI = ABI::V6;

/// The first version that keeps signals and abstract sockets within the session.
pub const ABI_WITH_SCOPES: i32 = 6;

/// Confines this process and what it starts: `read` may be read and executed, `write` may be
/// read and written, `devices` too but are single files. Paths that do not exist are left out.
/// Returns the version of Landlock that this kernel has.
pub fn apply(read: &[&Path], write: &[&str], devices: &[&str]) -> Result<i32, Failure> {
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
        .trying("confining the file system by Landlock")?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. }
            if status.ruleset != RulesetStatus::NotEnforced =>
        {
            Ok(effective_abi as i32)
        }
        _ => Err(Failure::new(
            "confining the file system by Landlock",
            "this kernel has no Landlock, or it is not enabled",
        )),
    }
}
