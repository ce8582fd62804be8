use nix::unistd::Uid;
use nix::unistd::User;

use crate::domain::audit::Actor;

pub(super) fn actor() -> Actor {
    let user = Uid::current();
    let name = User::from_uid(user).ok().flatten().map(|user| user.name);
    Actor::Cli(name.unwrap_or_else(|| user.to_string()))
}
